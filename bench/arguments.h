// The command line of a bench. CLI11 stands behind it, compiled once in arguments.cpp: read by every bench, it was most
// of what they cost to build.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace ccdrec::bench {

struct Allowed {
  enum class Kind { anything, one_of, between, positive, zero_or_more } kind = Kind::anything;
  std::vector<std::string> values = {};
  double least = 0, most = 0;
};
inline Allowed one_of(std::vector<std::string> values) { return {Allowed::Kind::one_of, std::move(values)}; }
inline Allowed between(double least, double most) { return {Allowed::Kind::between, {}, least, most}; }
inline Allowed positive() { return {Allowed::Kind::positive}; }
inline Allowed zero_or_more() { return {Allowed::Kind::zero_or_more}; }

class Arguments {
 public:
  explicit Arguments(const std::string& about);
  ~Arguments();

  // T: std::string, int, int64_t, double, bool (a flag) or std::vector<std::string> (given several times). What `value`
  // holds is the default.
  template <class T>
  void add(const std::string& name, T& value, const std::string& text = "", const Allowed& = {});
  // with commas
  void add_list(const std::string& name, std::vector<std::string>& values, const std::string& text = "",
                const Allowed& = {});

  // What the process is to end with: 0 after --help, 2 after a sentence about what is wrong. Nothing: go on.
  std::optional<int> parse(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace ccdrec::bench
