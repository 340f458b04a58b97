// Who may include whom: each room the rooms below it and itself, no two files one another in a circle.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/temp_folder.h"

namespace fs = std::filesystem;

namespace {

struct Include {
  std::string from, to;  // paths from the root
  int line;
};

// From the lowest up. Two rooms in one line know nothing of each other.
const std::vector<std::vector<std::string>> kRooms = {
    {"kernels"},      {"data"},          {"host/base"},  {"host/models"}, {"host/samplers", "host/ccdrec"},
    {"host/systems"}, {"host/training"}, {"host/files"}, {"host/report"}, {"host/experiments"},
    {"host/cli"},     {"bench"},         {"tests"},
};
// The emulator stands in for the CUDA runtime, which is below everything.
const std::string kEmulator = "tests/simt/simt.h";

struct Place {
  int floor = -1;  // -1: no room of ours
  std::string room;
};

Place place_of(const std::string& path) {
  Place best;
  for (size_t k = 0; k < kRooms.size(); ++k)
    for (const std::string& room : kRooms[k])
      if (path.rfind(room + "/", 0) == 0 && room.size() > best.room.size()) best = {int(k), room};
  return best;
}

// Every include of a file of the project under `root`.
std::vector<Include> includes_under(const fs::path& root) {
  std::vector<Include> all;
  for (const char* top : {"kernels", "data", "host", "tests", "bench"}) {
    if (!fs::exists(root / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string kind = entry.path().extension().string();
      if (kind != ".h" && kind != ".cpp" && kind != ".cu") continue;
      std::ifstream in(entry.path());
      std::string text;
      for (int line = 1; std::getline(in, text); ++line) {
        const std::string start = "#include \"";
        if (text.rfind(start, 0) != 0) continue;
        const std::string to = text.substr(start.size(), text.find('"', start.size()) - start.size());
        all.push_back({fs::relative(entry.path(), root).generic_string(), to, line});
      }
    }
  }
  std::sort(all.begin(), all.end(),
            [](const Include& a, const Include& b) { return std::tie(a.from, a.line) < std::tie(b.from, b.line); });
  return all;
}

// One sentence for each include that goes upward or to a neighbour.
std::vector<std::string> wrong_ways(const std::vector<Include>& all) {
  std::vector<std::string> wrong;
  for (const Include& i : all) {
    const Place from = place_of(i.from), to = place_of(i.to);
    const std::string where = i.from + ":" + std::to_string(i.line) + " includes " + i.to;
    if (from.floor < 0)
      wrong.push_back(i.from + " stands in no room of tests/host/layers_test.cpp");
    else if (to.floor < 0 || i.to == kEmulator)
      continue;  // made by the build, as build_info.h
    else if (to.floor > from.floor)
      wrong.push_back(where + ", which is above it");
    else if (to.floor == from.floor && to.room != from.room)
      wrong.push_back(where + ", a neighbour that it may not know");
  }
  return wrong;
}

// One sentence for each circle of headers: the files in order.
std::vector<std::string> circles(const std::vector<Include>& all) {
  std::map<std::string, std::vector<std::string>> next;
  for (const Include& i : all) next[i.from].push_back(i.to);
  std::vector<std::string> found, path;
  std::set<std::string> done;
  const auto visit = [&](const auto& self, const std::string& file) -> void {
    const auto on_path = std::find(path.begin(), path.end(), file);
    if (on_path != path.end()) {
      std::string circle;
      for (auto f = on_path; f != path.end(); ++f) circle += *f + " -> ";
      found.push_back(circle + file);
      return;
    }
    if (done.count(file)) return;
    path.push_back(file);
    if (const auto to = next.find(file); to != next.end())
      for (const std::string& f : to->second) self(self, f);
    path.pop_back();
    done.insert(file);
  };
  for (const auto& [file, to] : next) visit(visit, file);
  return found;
}

std::string lines(const std::vector<std::string>& all) {
  std::string text;
  for (const std::string& l : all) text += l + "\n";
  return text;
}

void write(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(Layers, NothingIsIncludedFromAboveOrInACircle) {
  const std::vector<Include> all = includes_under(CCDREC_SOURCE_DIR);
  ASSERT_GT(all.size(), 500u) << "the sources are not where they were";
  EXPECT_EQ(lines(wrong_ways(all)), "");
  EXPECT_EQ(lines(circles(all)), "");
}

TEST(Layers, SayWhichLineIsWrong) {
  const ccdrec::test::Folder folder;
  const fs::path root = folder.path();
  write(root / "kernels/a.h", "// a\n#include \"host/models/b.h\"\n");
  write(root / "host/models/b.h", "#include \"kernels/a.h\"\n#include <vector>\n");
  write(root / "host/samplers/c.cpp", "#include \"host/ccdrec/d.h\"\n#include \"host/models/b.h\"\n");
  write(root / "host/attic/e.cpp", "#include \"kernels/a.h\"\n");
  const std::vector<Include> all = includes_under(root);
  EXPECT_EQ(lines(wrong_ways(all)),
            "host/attic/e.cpp stands in no room of tests/host/layers_test.cpp\n"
            "host/samplers/c.cpp:1 includes host/ccdrec/d.h, a neighbour that it may not know\n"
            "kernels/a.h:2 includes host/models/b.h, which is above it\n");
  EXPECT_EQ(lines(circles(all)), "kernels/a.h -> host/models/b.h -> kernels/a.h\n");
}

}  // namespace
