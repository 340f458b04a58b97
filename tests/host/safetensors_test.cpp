// The checkpoint format: the bytes of the documented layout, the round trip, and files that lie.
#include "host/base/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

#include "data/error.h"
#include "kernels/rng.h"
#include "tests/host/tiny_data.h"

namespace ccdrec {
namespace {

using test::Folder;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}
void put(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string little_endian(uint64_t n) {
  std::string s(8, '\0');
  for (int b = 0; b < 8; ++b) s[size_t(b)] = char(n >> (8 * b));
  return s;
}
std::string file_of(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

std::string sentence(const std::string& path, const std::vector<std::string>* names = nullptr) {
  try {
    read_safetensors(path, names);
  } catch (const UserError& e) { return e.what(); }
  return "(no error)";
}

TEST(Safetensors, BytesAreThoseOfTheFormat) {
  const Folder dir;
  const float a[3] = {1.0f, -2.5f, 0.0f};
  const double b[1] = {1.5};
  write_safetensors(dir / "x.safetensors", {{"a", "F32", {3, 1}, a}, {"b", "F64", {1}, b}}, {{"format", "pt"}});
  // The wide element first, so that every tensor is aligned; header padded with blanks to a multiple of 8.
  std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[3,1],"data_offsets":[8,20]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string data(20, '\0');
  std::memcpy(data.data(), b, 8), std::memcpy(data.data() + 8, a, 12);
  EXPECT_EQ(bytes_of(dir / "x.safetensors"), file_of(header, data));
}

TEST(Safetensors, RoundTripKeepsEveryBitAndLeavesNoTemporary) {
  const Folder dir;
  std::vector<float> f(37 * 5);
  for (size_t i = 0; i < f.size(); ++i) f[i] = std::ldexp(float(draw(Stream{1, Use::test}, uint32_t(i)).v[0]), -40);
  f[3] = NAN, f[4] = -0.0f, f[5] = INFINITY;
  const std::vector<int32_t> i32 = {1, -2, INT32_MIN};
  const std::vector<int64_t> i64 = {INT64_MAX};
  const double f64 = 0.1;
  const std::map<std::string, std::string> metadata = {{"epoch", "3"}, {"quote", "a \"b\" \\ \n ü"}};
  const std::string path = dir / "x.safetensors";
  for (int again = 0; again < 2; ++again)  // the second write replaces the first
    write_safetensors(path,
                      {{"f", "F32", {37, 5}, f.data()},
                       {"i", "I32", {3}, i32.data()},
                       {"l", "I64", {}, i64.data()},
                       {"none", "F32", {0, 5}, nullptr},
                       {"d", "F64", {1, 1, 1}, &f64}},
                      metadata);
  const TensorFile back = read_safetensors(path);
  EXPECT_EQ(back.metadata, metadata);
  ASSERT_EQ(back.tensors.size(), 5u);
  EXPECT_EQ(back.tensors.at("f").shape, (std::vector<int64_t>{37, 5}));
  EXPECT_EQ(std::memcmp(back.tensors.at("f").f32(), f.data(), f.size() * 4), 0);
  EXPECT_EQ(std::memcmp(back.tensors.at("i").i32(), i32.data(), 12), 0);
  EXPECT_TRUE(back.tensors.at("l").shape.empty());
  EXPECT_EQ(std::memcmp(back.tensors.at("l").bytes.data(), i64.data(), 8), 0);
  EXPECT_TRUE(back.tensors.at("none").bytes.empty());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);

  const std::vector<std::string> one = {"i"}, absent = {"j"};
  EXPECT_EQ(read_safetensors(path, &one).tensors.size(), 1u);
  EXPECT_NE(sentence(path, &absent).find("no tensor 'j'"), std::string::npos);
  const std::vector<std::string> nothing;
  EXPECT_EQ(read_safetensors(path, &nothing).metadata.at("epoch"), "3");
}

TEST(Safetensors, FilesWithoutTensorsOrMetadata) {
  const Folder dir;
  write_safetensors(dir / "e.safetensors", {}, {});
  EXPECT_EQ(bytes_of(dir / "e.safetensors"), little_endian(8) + "{}      ");
  EXPECT_TRUE(read_safetensors(dir / "e.safetensors").tensors.empty());
}

TEST(Safetensors, HeadersThatLieAreRefused) {
  const Folder dir;
  const std::string d4(4, 'x'), d8(8, 'x'), path = dir / "bad.safetensors";
  struct Case {
    std::string bytes;
    const char* expected;
  };
  const Case cases[] = {
      {"", "too few"},
      {"1234567", "too few"},
      {little_endian(100), "announces a header"},
      {little_endian(UINT64_MAX) + "{}", "announces a header"},
      {file_of("[]", ""), "not a JSON object"},
      {file_of("{", ""), "not valid JSON"},
      {file_of("\x80\x02}q", ""), "not valid JSON"},
      {file_of(R"({"a":1})", ""), "lacks"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1]}})", d4), "lacks"},
      {file_of(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", d4), "unknown dtype"},
      {file_of(R"({"\u001b[31m\u009b":{"shape":[1],"data_offsets":[0,4]}})", d4), "tensor '?[31m?' lacks dtype"},
      {file_of("{\"" + std::string(100, 'n') + "\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", d4),
       "nnn...' has an unknown dtype"},
      {file_of(R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", d4), "unknown dtype"},
      {file_of(R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", d4), "not a list"},
      {file_of(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", d4), "other than sizes"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", d4), "other than sizes"},
      {file_of(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", d4), "overflows"},
      {file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}})", ""),
       "overflows"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", d4), "two positions"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", d4), "two positions"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", d4), "lies at"},
      {file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", d4), "truncated"},
      {file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", d4), "needs 8"},
      {file_of(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
           d4),
       "overlap"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", d8), "hole"},
      {file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", d8), "belong to no tensor"},
      {file_of(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
           d8),
       "twice"},
      {file_of(R"({"__metadata__":{"a":1}})", ""), "not a string"},
      {file_of(R"({"__metadata__":[]})", ""), "not an object"},
      {file_of(std::string(100000, '['), ""), "not valid JSON"},
  };
  for (const Case& c : cases) {
    put(path, c.bytes);
    const std::string got = sentence(path);
    EXPECT_NE(got.find(c.expected), std::string::npos) << "expected '" << c.expected << "', got " << got;
    EXPECT_NE(got.find(path), std::string::npos);
  }
  EXPECT_NE(sentence(dir / "absent").find("cannot be opened"), std::string::npos);
  EXPECT_NE(sentence(dir.path()).find("regular file"), std::string::npos);
}

// Every truncation and thousands of flipped bits: either refused with a sentence, or still a consistent file. Never a
// crash, never bytes out of nowhere.
TEST(Safetensors, DamagedFilesNeverCrash) {
  const Folder dir;
  const std::vector<float> f = {1, 2, 3, 4, 5, 6};
  const int64_t l = 9;
  const std::string good_path = dir / "good.safetensors", path = dir / "x.safetensors";
  write_safetensors(good_path, {{"weights", "F32", {2, 3}, f.data()}, {"count", "I64", {1}, &l}}, {{"epoch", "3"}});
  const std::string good = bytes_of(good_path);
  for (size_t n = 0; n < good.size(); ++n) {
    put(path, good.substr(0, n));
    EXPECT_NE(sentence(path), "(no error)") << "truncated to " << n << " bytes";
  }
  int refused = 0;
  const size_t header_bits = (good.size() - 32) * 8;
  for (size_t bit = 0; bit < header_bits; ++bit) {
    std::string bad = good;
    bad[bit / 8] = char(bad[bit / 8] ^ (1 << (bit % 8)));
    put(path, bad);
    try {
      const TensorFile file = read_safetensors(path);
      for (const auto& [name, t] : file.tensors) {
        size_t n = t.dtype == "F32" || t.dtype == "I32" || t.dtype == "U32" ? 4 : 8;
        for (const int64_t s : t.shape) n *= size_t(s);
        EXPECT_EQ(t.bytes.size(), n) << name;
      }
    } catch (const UserError&) { ++refused; }
  }
  EXPECT_GT(refused, int(header_bits / 2));
}

TEST(Safetensors, AFailedWriteLeavesTheOldFile) {
  const Folder dir;
  const float x = 1;
  EXPECT_THROW(write_safetensors(dir / "no/such/folder/x", {{"a", "F32", {1}, &x}}, {}), UserError);
  std::filesystem::create_directory(dir / "taken");
  EXPECT_THROW(write_safetensors(dir / "taken", {{"a", "F32", {1}, &x}}, {}), UserError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1)
      << "a temporary file was left behind";
  EXPECT_THROW(write_safetensors(dir / "x", {{"a", "F33", {1}, &x}}, {}), std::logic_error);
  EXPECT_THROW(write_safetensors(dir / "x", {{"a", "F32", {1}, &x}, {"a", "F32", {1}, &x}}, {}), std::logic_error);
}

}  // namespace
}  // namespace ccdrec
