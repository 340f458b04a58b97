#include "data/npy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <string>

#include "data/hash.h"
#include "data/sha256.h"
#include "data/text.h"
#include "tests/data/folder.h"
#include "tests/support.h"

namespace ccdrec::test::npy_test {
namespace {

// The halves of the matrix below; an independent table, not a conversion.
struct Half {
  uint16_t bits;
  float value;
};
const Half halves[] = {{0x0000, 0.0f},
                       {0x3c00, 1.0f},
                       {0xc000, -2.0f},
                       {0x3555, 0.333251953125f},
                       {0x7bff, 65504.0f},
                       {0x0001, 0x1p-24f},
                       {0x03ff, 1023 * 0x1p-24f},
                       {0x0400, 0x1p-14f},
                       {0x8001, -0x1p-24f},
                       {0xfbff, -65504.0f},
                       {0x3800, 0.5f},
                       {0x4248, 3.140625f}};
constexpr size_t kRows = 3, kCols = 4;

std::string stored(const std::string& dtype, bool fortran) {
  std::string bytes;
  for (size_t e = 0; e < kRows * kCols; ++e) {
    const Half& h = fortran ? halves[(e % kRows) * kCols + e / kRows] : halves[e];
    if (dtype == "<f2") bytes += raw_bytes(std::vector<uint16_t>{h.bits});
    if (dtype == "<f4") bytes += raw_bytes(std::vector<float>{h.value});
    if (dtype == "<f8") bytes += raw_bytes(std::vector<double>{h.value});
  }
  return bytes;
}

TEST(Npy, EveryVersionTypeAndOrderReadsTheSame) {
  const Folder dir;
  for (int version : {1, 2, 3})
    for (const char* dtype : {"<f2", "<f4", "<f8"})
      for (bool fortran : {false, true}) {
        SCOPED_TRACE(testing::Message() << "version " << version << ' ' << dtype << (fortran ? " Fortran" : " C"));
        const NpyMatrix m(
            dir.write("x_feat.npy", npy_bytes(version, npy_dict(dtype, fortran, "(3, 4)"), stored(dtype, fortran))));
        ASSERT_EQ(m.rows(), 3);
        ASSERT_EQ(m.cols(), 4);
        EXPECT_EQ(m.dtype(), dtype);
        std::vector<float> all(12, NAN), part(4, NAN);
        m.read_rows(all.data(), 0, 3);
        m.read_rows(part.data(), 1, 1);
        for (size_t e = 0; e < 12; ++e) EXPECT_EQ(all[e], halves[e].value) << "element " << e;
        for (size_t j = 0; j < 4; ++j) EXPECT_EQ(part[j], halves[4 + j].value) << "column " << j;
        m.read_rows(nullptr, 3, 0);  // no rows: nothing is touched
      }
}

TEST(Npy, VectorsAndOldShapesAreMatrices) {
  const Folder dir;
  const std::string data = raw_bytes(std::vector<float>{1, 2, 3});
  for (const char* shape : {"(3,)", "(3, 1)", "(3L, 1L)", "(3,1)"}) {
    const NpyMatrix m(dir.write("a.npy", npy_bytes(1, npy_dict("<f4", false, shape), data)));
    EXPECT_EQ(m.rows(), 3) << shape;
    EXPECT_EQ(m.cols(), 1) << shape;
  }
  // other order, other quotes
  const NpyMatrix wide(
      dir.write("b.npy", npy_bytes(1, "{\"shape\": (1, 3), \"fortran_order\": False, \"descr\": \"<f4\"}   ", data)));
  EXPECT_EQ(wide.cols(), 3);
  const NpyMatrix none(dir.write("c.npy", npy_bytes(1, npy_dict("<f4", false, "(0, 5)"), "")));
  EXPECT_EQ(none.rows(), 0);
}

TEST(Npy, FortranBlocksWiderThanATile) {
  const Folder dir;
  const size_t rows = 37, cols = 53;
  std::vector<double> v(rows * cols);
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < cols; ++j) v[j * rows + i] = double(i * 1000 + j);
  const NpyMatrix m(dir.write("x.npy", npy_bytes(1, npy_dict("<f8", true, "(37, 53)"), raw_bytes(v))));
  std::vector<float> out(20 * cols, NAN);
  m.read_rows(out.data(), 5, 20);
  for (size_t i = 0; i < 20; ++i)
    for (size_t j = 0; j < cols; ++j) ASSERT_EQ(out[i * cols + j], float((i + 5) * 1000 + j));
}

TEST(Npy, MovesLeaveOneOwner) {
  const Folder dir;
  NpyMatrix a(dir.write("a.npy", npy_floats({1, 2}, 1, 2))), b(dir.write("b.npy", npy_floats({3, 4, 5}, 3, 1)));
  a = std::move(b);
  const NpyMatrix c(std::move(a));
  std::vector<float> out(3, NAN);
  c.read_rows(out.data(), 0, 3);
  EXPECT_EQ(out, (std::vector<float>{3, 4, 5}));
  EXPECT_EQ(c.byte_count(), 12u);
}

TEST(Npy, EveryBadFileHasItsSentence) {
  const Folder dir;
  const std::string good = npy_floats({1, 2, 3, 4, 5, 6}, 2, 3), six = raw_bytes(std::vector<float>(6, 1.0f)),
                    text = npy_dict("<f4", false, "(2, 3)");
  struct Case {
    const char* name;
    std::string bytes;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"empty file", "", {"does not begin as an npy file", "numpy.save"}},
      {"a zip (npz)", "PK\x03\x04 something long enough", {"does not begin as an npy file", "npz"}},
      {"a pickle", "\x80\x04\x95 something long enough", {"does not begin as an npy file", "pickle"}},
      {"magic only", good.substr(0, 7), {"truncated"}},
      {"half a header", good.substr(0, 40), {"truncated", "40 bytes"}},
      {"data cut short", good.substr(0, good.size() - 1), {"truncated", "copy or create"}},
      {"no data", npy_bytes(1, text, ""), {"truncated"}},
      {"version 9", npy_bytes(9, text, six), {"version 9", "expected 1, 2 or 3"}},
      {"objects",
       npy_bytes(1, npy_dict("|O", false, "(2, 3)"), six),
       {"Python objects", "pickle", "run code", "numpy.save"}},
      {"big-endian", npy_bytes(1, npy_dict(">f4", false, "(2, 3)"), six), {"big-endian", ">f4", "astype('<f4')"}},
      {"integers", npy_bytes(1, npy_dict("<i8", false, "(1, 3)"), six), {"holds <i8", "astype('<f4')"}},
      {"records",
       npy_bytes(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", six),
       {"records", "float32"}},
      {"three dimensions", npy_bytes(1, npy_dict("<f4", false, "(1, 2, 3)"), six), {"3 dimensions", "expected 2"}},
      {"a scalar", npy_bytes(1, npy_dict("<f4", false, "()"), six), {"0 dimensions", "expected 2"}},
      {"no columns", npy_bytes(1, npy_dict("<f4", false, "(2, 0)"), six), {"no columns"}},
      {"a shape beyond memory", npy_bytes(1, npy_dict("<f8", false, "(2147483647, 2147483647)"), six), {"truncated"}},
      {"a shape beyond 64 bits",
       npy_bytes(1, npy_dict("<f8", false, "(99999999999999999999, 2)"), six),
       {"npy header"}},
      {"a shape beyond 31 bits", npy_bytes(1, npy_dict("<f8", false, "(4294967297, 2)"), six), {"4294967297"}},
      {"negative shape", npy_bytes(1, npy_dict("<f4", false, "(-2, 3)"), six), {"npy header"}},
      {"not a dictionary", npy_bytes(1, "import os; os.system('x')", six), {"npy header"}},
      {"missing key", npy_bytes(1, "{'descr': '<f4', 'shape': (2, 3), }", six), {"npy header"}},
      {"unknown key",
       npy_bytes(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", six),
       {"npy header"}},
      {"text after it", npy_bytes(1, text + " + 1", six), {"npy header"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const std::string path = dir.write("bad_feat.npy", c.bytes);
    const std::string sentence = refusal([&] { NpyMatrix m(path); });
    EXPECT_TRUE(says(sentence, c.says));
    EXPECT_EQ(sentence.find(path), 0u) << sentence;  // the file first
  }
  // A path is text in a sentence, not its form, and one word of the command that it advises.
  for (const char* name : {"br{}_feat.npy", "{0:2000000000}_feat.npy", "it's \"x\"_feat.npy"}) {
    for (const size_t length : {size_t(8), size_t(40), good.size() - 1})
      EXPECT_TRUE(says(refusal([&] { NpyMatrix m(dir.write(name, good.substr(0, length))); }),
                       {dir / name + ": is truncated (" + std::to_string(length) + " bytes"}));
    const std::string path = dir.write(name, npy_bytes(1, npy_dict("<i8", false, "(1, 3)"), six));
    EXPECT_TRUE(
        says(refusal([&] { NpyMatrix m(path); }), {path + ": holds <i8", "astype('<f4'))\" " + shell_word(path)}));
  }
  EXPECT_TRUE(
      says(refusal([&] { NpyMatrix m(dir.write("x.npy", npy_bytes(1, npy_dict("\x1b[31m", false, "(1, 3)"), six))); }),
           {"holds ?[31m"}));
  EXPECT_TRUE(says(refusal([&] { NpyMatrix m(dir / "absent.npy"); }), {"absent.npy", "No such file"}));
  std::filesystem::create_directory(dir / "folder_feat.npy");
  EXPECT_TRUE(says(refusal([&] { NpyMatrix m(dir / "folder_feat.npy"); }), {"is a directory", "one row per item"}));
}

TEST(Npy, NonFiniteValuesAreNamed) {
  const Folder dir;
  const float inf = std::numeric_limits<float>::infinity();
  for (float bad : {NAN, inf, -inf}) {
    std::vector<float> v(20, 1.0f);
    v[13] = bad;
    const NpyMatrix m(dir.write("x.npy", npy_floats(v, 5, 4)));
    std::vector<float> out(20);
    EXPECT_TRUE(says(refusal([&] { m.read_rows(out.data(), 2, 3); }), {"x.npy", "row 3, column 1", "finite"}));
    m.read_rows(out.data(), 0, 3);  // the rows before are fine
  }
  const NpyMatrix big(
      dir.write("y.npy", npy_bytes(1, npy_dict("<f8", false, "(1, 2)"), raw_bytes(std::vector<double>{1, 1e300}))));
  std::vector<float> out(2);
  EXPECT_TRUE(says(refusal([&] { big.read_rows(out.data(), 0, 1); }), {"column 1", "float32"}));
}

TEST(Npy, WritesWhatItReadsAndLeavesNothingBehind) {
  const Folder dir;
  Draw g;
  const auto v = g.floats(7 * 5);
  write_npy(dir / "w.npy", v.data(), 7, 5);
  EXPECT_EQ(dir.names(), std::vector<std::string>{"w.npy"});
  const NpyMatrix m(dir / "w.npy");
  std::vector<float> out(35, NAN);
  m.read_rows(out.data(), 0, 7);
  EXPECT_EQ(out, v);
  EXPECT_EQ(m.rows(), 7);
  EXPECT_EQ((dir.read("w.npy").size() - 35 * 4) % 64, 0u);  // data aligned as NumPy's
  EXPECT_TRUE(
      says(refusal([&] { write_npy(dir / "no/such/w.npy", v.data(), 7, 5); }), {"no/such/w.npy", "cannot be created"}));
  std::filesystem::create_directory(dir / "taken.npy");
  EXPECT_TRUE(
      says(refusal([&] { write_npy(dir / "taken.npy", v.data(), 7, 5); }), {"taken.npy", "cannot be put in place"}));
  EXPECT_EQ(dir.names(), (std::vector<std::string>{"taken.npy", "w.npy"}));
}

// Cut, flipped and stretched files: each either reads or is refused with a sentence, and never anything else.
TEST(Npy, SurvivesDamage) {
  const Folder dir;
  Draw g;
  const std::vector<std::string> seeds{npy_floats(g.floats(24), 6, 4),
                                       npy_bytes(2, npy_dict("<f8", true, "(3, 4)"), stored("<f8", true)),
                                       npy_bytes(3, npy_dict("<f2", false, "(3, 4)"), stored("<f2", false))};
  int read = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = seeds[size_t(g.below(3))];
    const int flips = g.below(4);
    for (int f = 0; f < flips; ++f) {
      // half of them in the header
      const size_t reach = g.below(2) ? bytes.size() : std::min<size_t>(bytes.size(), 80);
      char& c = bytes[size_t(g.below(int32_t(reach)))];
      c = g.below(2) ? char(c ^ (1 << g.below(8))) : "0123456789(),'{}: <>|fO"[g.below(23)];
    }
    if (g.below(3) == 0) bytes.resize(size_t(g.below(int32_t(bytes.size() + 1))));
    try {
      const NpyMatrix m(dir.write("f.npy", bytes));
      ASSERT_LE(m.byte_count(), bytes.size());
      std::vector<float> out(size_t(m.rows() * m.cols()));
      m.read_rows(out.data(), 0, m.rows());
      ++read;
    } catch (const UserError&) { ++refused; }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 100);
}

TEST(Sha256, KnownAnswers) {  // FIPS 180-4 examples
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  EXPECT_EQ(sha256(million), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const Folder dir;
  EXPECT_EQ(sha256_file(dir.write("m", million + million)), sha256(million + million));
  EXPECT_TRUE(says(refusal([&] { sha256_file(dir / "none"); }), {"none", "cannot be opened"}));
  EXPECT_TRUE(says(refusal([&] { sha256_file(dir.path()); }), {"cannot be read"}));
}

TEST(Hash, EveryByteAndThePlaceOfItCount) {
  std::string s((size_t(2) << 20) + 13, 'x');
  const uint64_t base = hash_bytes(s.data(), s.size());
  EXPECT_EQ(base, hash_bytes(s.data(), s.size()));
  for (size_t at :
       {size_t(0), size_t(31), size_t(32), (size_t(1) << 20) - 1, size_t(1) << 20, s.size() - 14, s.size() - 1}) {
    s[at] ^= 1;
    EXPECT_NE(base, hash_bytes(s.data(), s.size())) << at;
    s[at] ^= 1;
  }
  EXPECT_NE(base, hash_bytes(s.data(), s.size() - 1));
  EXPECT_NE(base, hash_bytes(s.data(), s.size(), 1));
  std::string swapped = s;
  swapped[0] = 'a', swapped[size_t(1) << 20] = 'b';
  const uint64_t one = hash_bytes(swapped.data(), swapped.size());
  std::swap(swapped[0], swapped[size_t(1) << 20]);
  EXPECT_NE(one, hash_bytes(swapped.data(), swapped.size()));
  EXPECT_EQ(hex16(0x0123456789abcdefULL), "0123456789abcdef");
}

// What this process holds of a file it has mapped, in kB; -1 where the system does not say.
long pages_of(const std::string& path) {
  std::ifstream maps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(path) != std::string::npos) inside = true;
    if (inside && line.rfind("Rss:", 0) == 0) return std::stol(line.substr(4));
  }
  return -1;
}

TEST(Npy, PagesThatWereReadCanBeGivenBack) {
  const Folder dir;
  constexpr int64_t rows = 4096, cols = 512;  // 8 MB
  std::vector<float> x(rows * cols);
  for (size_t k = 0; k < x.size(); ++k) x[k] = float(k % 1000);
  write_npy(dir / "x.npy", x.data(), rows, cols);
  const NpyMatrix m(dir / "x.npy");
  std::vector<float> got(x.size(), -1.0f);
  m.read_rows(got.data(), 0, rows);
  const long before = pages_of(dir / "x.npy");
  m.forget_pages();
  if (before >= 0) {
    EXPECT_GE(before, 8 * 1024);
    EXPECT_EQ(pages_of(dir / "x.npy"), 0);
  }
  std::fill(got.begin(), got.end(), -1.0f);
  m.read_rows(got.data(), 0, rows);
  EXPECT_EQ(got, x);
}

}  // namespace
}  // namespace ccdrec::test::npy_test
