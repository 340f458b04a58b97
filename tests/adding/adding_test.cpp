// docs/adding.md shows the files of docs/adding as they are, every one of them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

namespace {
namespace fs = std::filesystem;

std::string text_of(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Adding, ThePageShowsTheFilesThatAreTested) {
  const fs::path docs = fs::path(CCDREC_SOURCE_DIR) / "docs";
  const std::string page = text_of(docs / "adding.md");
  std::set<std::string> shown;
  for (size_t at = page.find("`docs/adding/"); at != std::string::npos; at = page.find("`docs/adding/", at + 1)) {
    const size_t first = at + std::string("`docs/adding/").size(), last = page.find('`', first);
    const std::string name = page.substr(first, last - first);
    if (name.empty()) continue;  // the folder
    const size_t block = page.find("```", last), begin = page.find('\n', block) + 1, end = page.find("```\n", begin);
    ASSERT_NE(end, std::string::npos) << name;
    EXPECT_EQ(page.substr(begin, end - begin), text_of(docs / "adding" / name))
        << "docs/adding.md shows an old docs/adding/" << name;
    shown.insert(name);
  }
  std::set<std::string> files;
  for (const auto& entry : fs::directory_iterator(docs / "adding")) files.insert(entry.path().filename().string());
  EXPECT_EQ(shown, files);
  EXPECT_GE(files.size(), 8u);
}

}  // namespace
