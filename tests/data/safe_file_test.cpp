// Files that appear whole or not at all: what is replaced, what is followed, and what is never replaced.
#include "data/safe_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/data/folder.h"

namespace ccdrec::test::safe_file_test {
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

TEST(SafeFile, TemporaryFilesAreMadeThroughNoLinkAndOverNoFile) {
  const Folder dir;
  dir.write("victim", "precious");
  const std::string temporary = "a.tmp-" + std::to_string(::getpid());
  fs::create_symlink("victim", dir / temporary);
  dir.write(temporary + "-2", "of a killed process with the same number");
  put(dir / "a", "new");
  EXPECT_EQ(dir.read("a"), "new");
  EXPECT_EQ(dir.read("victim"), "precious");
  EXPECT_FALSE(fs::is_symlink(dir / "a"));
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"a", temporary, temporary + "-2", "victim"}));
  EXPECT_EQ(writer_of_temporary(temporary, "a"), ::getpid());
  EXPECT_EQ(writer_of_temporary(temporary + "-2", "a"), ::getpid());
  for (const char* name : {"a", "a.tmp-", "a.tmp-0", "a.tmp-x", "a.tmp-3x", "a.tmp-3-", "a.tmp-3-1", "a.tmp-3-2-2",
                           "ab.tmp-3", "a.tmp--3"})
    EXPECT_EQ(writer_of_temporary(name, "a"), 0) << name;
}

TEST(SafeFile, PermissionsAreKeptAndThoseOfANewFileAreTheUmasks) {
  const Folder dir;
  const auto mode = [&](const char* name) {
    struct stat st {};
    EXPECT_EQ(::stat((dir / name).c_str(), &st), 0);
    return st.st_mode & 07777;
  };
  const mode_t before = ::umask(0027);
  put(dir / "new", "x");
  EXPECT_EQ(mode("new"), 0640u);
  ::umask(0002);
  put(dir / "shared", "x");
  EXPECT_EQ(mode("shared"), 0664u);
  for (const mode_t kept : {0600u, 0666u, 0444u, 0755u}) {
    ASSERT_EQ(::chmod((dir / "new").c_str(), kept), 0);
    put(dir / "new", "y");
    EXPECT_EQ(mode("new"), kept);
  }
  ::umask(before);
}

TEST(SafeFile, WhatIsKeptStaysWhateverTakesItsPlace) {
  const Folder dir;
  dir.write("best", "first"), dir.write("kept", "older");
  fs::create_symlink("best", dir / "link");
  for (const char* from : {"best", "link"}) {
    dir.write("best", "first");
    keep_as(dir / from, dir / "kept");
    EXPECT_FALSE(fs::is_symlink(dir / "kept"));
    put(dir / "best", "second");
    EXPECT_EQ(dir.read("kept"), "first");
  }
  // No hard link leads to another file system: copied.
  const fs::path far = fs::temp_directory_path() / fmt::format("ccdrec-kept-{}", ::getpid());
  keep_as(dir / "best", far.string());
  put(dir / "best", "third");
  std::ifstream in(far);
  std::string text;
  in >> text;
  fs::remove(far);
  EXPECT_EQ(text, "second");
  EXPECT_TRUE(says(refusal([&] { keep_as(dir / "absent", dir / "kept"); }), {"absent: cannot be read"}));
}

}  // namespace
}  // namespace ccdrec::test::safe_file_test
