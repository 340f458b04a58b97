// The sentence of a refusal, and the bytes of npy files.
#pragma once
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "data/error.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {

// The sentence of the UserError that `f` throws; "" and a failure where it throws none.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const UserError& e) { return e.what(); }
  ADD_FAILURE() << "expected a UserError";
  return "";
}

// Does the sentence hold every one of these parts? Written for messages: the file, the place, what was expected, what
// to do.
inline ::testing::AssertionResult says(const std::string& sentence, const std::vector<std::string>& parts) {
  for (const std::string& p : parts)
    if (sentence.find(p) == std::string::npos)
      return ::testing::AssertionFailure() << "'" << p << "' is missing in: " << sentence;
  if (sentence.find('\n') != std::string::npos)
    return ::testing::AssertionFailure() << "more than one line: " << sentence;
  return ::testing::AssertionSuccess();
}

// The bytes of an npy file: any version and header, so that wrong ones can be made.
inline std::string npy_bytes(int version, const std::string& header, const std::string& data) {
  std::string s("\x93NUMPY");
  s += char(version);
  s += '\0';
  std::string h = header + "\n";
  for (int b = 0; b < (version == 1 ? 2 : 4); ++b) s += char(h.size() >> (8 * b) & 255);
  return s + h + data;
}
inline std::string npy_dict(const std::string& descr, bool fortran, const std::string& shape) {
  return fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}", descr, fortran ? "True" : "False", shape);
}
template <class T>
std::string raw_bytes(const std::vector<T>& v) {
  return {reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T)};
}
inline std::string npy_floats(const std::vector<float>& v, size_t rows, size_t cols) {
  return npy_bytes(1, npy_dict("<f4", false, fmt::format("({}, {})", rows, cols)), raw_bytes(v));
}

}  // namespace ccdrec::test
