// Files that appear whole or not at all: what is replaced, what is followed, and what is never replaced.
#include "data/safe_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/data/folder.h"

namespace ccdrec::test {
namespace {

namespace fs = std::filesystem;

void put(const std::string& path, const std::string& text) {
  SafeFile f(path);
  f.write(text);
  f.commit();
}

TEST(SafeFile, AppearsWholeOrNotAtAll) {
  const Folder dir;
  dir.write("a", "old");
  {
    SafeFile f(dir / "a");
    f.write("half");
    EXPECT_EQ(dir.read("a"), "old");
    EXPECT_EQ(dir.names().size(), 2u) << "the temporary file lies beside its place";
  }
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"a"}));
  EXPECT_EQ(dir.read("a"), "old") << "not committed";
  put(dir / "a", "new");
  EXPECT_EQ(dir.read("a"), "new");
  const std::string longest(250, 'n');  // a name the disk allows, with no room for an ending
  put(dir / longest, "long");
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"a", longest}));
  EXPECT_TRUE(says(refusal([&] { put(dir / std::string(300, 'n'), "x"); }), {"nnn", "cannot be"}));
  fs::create_directories(dir / "folder");
  EXPECT_TRUE(says(refusal([&] { put(dir / "folder", "x"); }), {"folder: ", "cannot be put in place"}));
}

TEST(SafeFile, LinksStayAndWhatTheyPointToIsReplaced) {
  const Folder dir;
  fs::create_directories(dir / "far");
  dir.write("far/target", "old");
  fs::create_symlink("far/target", dir / "near");
  fs::create_symlink(dir / "near", dir / "chain");  // absolute, to another link
  put(dir / "chain", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "chain") && fs::is_symlink(dir / "near"));
  EXPECT_FALSE(fs::is_symlink(dir / "far/target"));
  EXPECT_EQ(dir.read("far/target"), "new");
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"chain", "far", "near"})) << "nothing beside the links";
  fs::create_symlink("far/made", dir / "dangling");
  put(dir / "dangling", "made");
  EXPECT_EQ(dir.read("far/made"), "made");
  EXPECT_TRUE(fs::is_symlink(dir / "dangling"));
  fs::create_symlink("round", dir / "about");
  fs::create_symlink("about", dir / "round");
  EXPECT_TRUE(says(refusal([&] { put(dir / "round", "x"); }), {"round", "circle"}));
}

TEST(SafeFile, WhatIsNoRegularFileIsWrittenStraight) {
  const Folder dir;
  const std::string pipe = dir / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_symlink("pipe", dir / "link");
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  for (const char* name : {"pipe", "link"}) {
    put(dir / name, "through");
    char got[16] = {};
    EXPECT_EQ(::read(reader, got, sizeof got), 7);
    EXPECT_STREQ(got, "through");
    EXPECT_TRUE(fs::is_fifo(dir / name)) << name << " was replaced";
  }
  ::close(reader);
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"link", "pipe"}));

  // /dev/stdout is such a link into /proc: a file that is open there is added to, not replaced.
  const std::string file = dir.write("file", "before ");
  const int fd = ::open(file.c_str(), O_WRONLY | O_APPEND);
  ASSERT_GE(fd, 0);
  fs::create_symlink(fmt::format("/proc/self/fd/{}", fd), dir / "stdout");
  struct stat was {
  }, is{};
  ASSERT_EQ(::fstat(fd, &was), 0);
  put(dir / "stdout", "after");
  ASSERT_EQ(::stat(file.c_str(), &is), 0);
  EXPECT_EQ(was.st_ino, is.st_ino);
  EXPECT_EQ(dir.read("file"), "before after");
  ::close(fd);
}

}  // namespace
}  // namespace ccdrec::test
