// A temporary folder that goes with the test, and files written into it.
#pragma once
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace ccdrec::test {

class Folder {
 public:
  Folder() {
    // In memory where that exists: thousands of small files on a slow disk would be most of a test's time.
    std::string pattern = "/dev/shm/ccdrec-test-XXXXXX";
    if (!::mkdtemp(pattern.data())) {
      pattern = (std::filesystem::temp_directory_path() / "ccdrec-test-XXXXXX").string();
      if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
    }
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(*this / name, std::ios::binary) << bytes;
    return *this / name;
  }
  std::string read(const std::string& name) const {
    std::ifstream f(*this / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(f), {}};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(path_)) out.push_back(e.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  std::string path_;
};

}  // namespace ccdrec::test
