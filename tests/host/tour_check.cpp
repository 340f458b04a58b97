#include "tests/host/tour_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

#include "kernels/ops.h"

namespace ccdrec::test {
namespace {
namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

Strings lines_of(const std::string& text) {
  Strings lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}
std::string text_of(const Strings& lines) { return fmt::format("{}\n", fmt::join(lines, "\n")); }
Strings words_of(const std::string& line) {
  std::istringstream in(line);
  Strings words;
  for (std::string w; in >> w;) words.push_back(w);
  return words;
}
Strings matches(const std::string& line, const std::regex& what) {
  Strings found;
  for (std::sregex_iterator m(line.begin(), line.end(), what), end; m != end; ++m)
    found.push_back((*m)[m->size() > 1 ? 1 : 0]);
  return found;
}

// What each line of a Markdown text is in: the word after the fence that opened it, "fence" for the fences, "" outside.
Strings kinds_of(const Strings& lines) {
  Strings kinds;
  std::string open;
  bool inside = false;
  for (const std::string& line : lines) {
    if (line.rfind("```", 0) == 0) {
      open = inside ? "" : line.size() > 3 ? line.substr(3) : "plain";
      inside = !inside;
      kinds.emplace_back("fence");
    } else {
      kinds.push_back(open);
    }
  }
  return kinds;
}

// ---- numbers

// A number as it is printed: [-]digits[.digits][e[-+]digits]; its last digit is worth `unit`.
struct Printed {
  double value = 0, unit = 0;
  size_t decimals = 0;
  std::string form;  // two numbers of one form differ in digits only
};
std::optional<Printed> printed(const std::string& word) {
  static const std::regex number(R"(-?(\d+)(\.(\d+))?(e([-+]\d+))?[:,]?)");
  std::smatch m;
  if (!std::regex_match(word, m, number)) return std::nullopt;
  Printed p;
  p.value = std::stod(word), p.decimals = size_t(m[3].length());
  p.unit = std::pow(10.0, (m[5].matched ? std::stoi(m[5]) : 0) - int(p.decimals));
  p.form = fmt::format("{} {} {}", p.decimals, m[4].matched,
                       std::isdigit(static_cast<unsigned char>(word.back())) ? ' ' : word.back());
  return p;
}

bool same_word(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto x = printed(a), y = printed(b);
  if (!x || !y || x->form != y->form || x->decimals == 0) return false;  // integers, and words, must be equal
  return std::fabs(x->value - y->value) <= 1.001 * std::max(x->unit, y->unit);
}

const std::regex& measured() {  // four decimals or more, with its sign: a number that the program printed
  static const std::regex r(R"(-?\d+\.\d{4,}(?:e[-+]\d+)?)");
  return r;
}

// A value and how far it may be from the one that was rounded when it was printed.
struct Bounded {
  double v = 0, err = 0;
};

// + - * / ^, parentheses, sqrt exp log, numbers. Throws std::runtime_error on anything else.
class Expression {
 public:
  explicit Expression(const std::string& text) : s_(text) {}
  Bounded value() {
    const Bounded v = sum();
    if (skip() != s_.size()) fail();
    return v;
  }

 private:
  template <class F>
  static Bounded apply(F&& f, Bounded a, Bounded b = {}) {  // the error: the farthest corner
    Bounded r{f(a.v, b.v), 0};
    for (const double i : {-1.0, 1.0})
      for (const double k : {-1.0, 1.0}) r.err = std::max(r.err, std::fabs(f(a.v + i * a.err, b.v + k * b.err) - r.v));
    return r;
  }
  size_t skip() {
    while (at_ < s_.size() && s_[at_] == ' ') ++at_;
    return at_;
  }
  bool take(char c) { return skip() < s_.size() && s_[at_] == c && ++at_; }
  [[noreturn]] void fail() const {
    throw std::runtime_error(fmt::format("'{}' is no arithmetic at position {}", s_, at_));
  }
  Bounded sum() {
    Bounded a = product();
    for (;;)
      if (take('+'))
        a = apply([](double x, double y) { return x + y; }, a, product());
      else if (take('-'))
        a = apply([](double x, double y) { return x - y; }, a, product());
      else
        return a;
  }
  Bounded product() {
    Bounded a = power();
    for (;;)
      if (take('*'))
        a = apply([](double x, double y) { return x * y; }, a, power());
      else if (take('/'))
        a = apply([](double x, double y) { return x / y; }, a, power());
      else
        return a;
  }
  Bounded power() {
    const Bounded a = factor();
    return take('^') ? apply([](double x, double y) { return std::pow(x, y); }, a, factor()) : a;
  }
  Bounded factor() {
    if (take('-')) return apply([](double x, double) { return -x; }, factor());
    if (take('(')) return closed(sum());
    using Function = double (*)(double);
    static const std::pair<const char*, Function> functions[] = {{"sqrt(", [](double x) { return std::sqrt(x); }},
                                                                 {"exp(", [](double x) { return std::exp(x); }},
                                                                 {"log(", [](double x) { return std::log(x); }}};
    for (const auto& [name, f] : functions)
      if (s_.compare(skip(), std::string(name).size(), name) == 0) {
        at_ += std::string(name).size();
        return closed(apply([f = f](double x, double) { return f(x); }, sum()));
      }
    static const std::regex number(R"(^\d+(\.\d+)?(e[-+]?\d+)?)");
    std::smatch m;
    const std::string rest = s_.substr(skip());
    if (!std::regex_search(rest, m, number)) fail();
    at_ += size_t(m.length());
    const std::string word = m[0];
    const auto p = printed(word);
    return {std::stod(word), p && p->decimals >= 4 ? 0.5 * p->unit : 0};
  }
  Bounded closed(Bounded v) {
    if (!take(')')) fail();
    return v;
  }
  std::string s_;
  size_t at_ = 0;
};

std::string read_file(const fs::path& path) {
  std::ifstream f(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(f), {}};
}
bool has_word(const std::string& text, const std::string& word) {
  const auto part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1))
    if ((at == 0 || !part(text[at - 1])) && (at + word.size() == text.size() || !part(text[at + word.size()])))
      return true;
  return false;
}

}  // namespace

std::string rewritten(const std::string& tour, const Runner& run) {
  const Strings lines = lines_of(tour), kinds = kinds_of(lines);
  Strings out;
  for (size_t k = 0; k < lines.size(); ++k) {
    if (kinds[k] != "console") {
      out.push_back(lines[k]);
      continue;
    }
    if (lines[k].rfind("$ ", 0) != 0) continue;  // of the old output
    std::string command;
    for (;; ++k) {  // a backslash at the end of a line goes on
      out.push_back(lines[k]);
      command += command.empty() ? lines[k].substr(2) : lines[k];
      if (command.empty() || command.back() != '\\' || k + 1 == lines.size()) break;
      command.back() = ' ';
    }
    const Ran r = run(words_of(command));
    for (const std::string& line : lines_of(r.out)) out.push_back(line);
    if (r.code != 0)
      for (const std::string& line : lines_of(r.err)) out.push_back(line);
  }
  return text_of(out);
}

std::string updated(const std::string& tour, const std::string& rewritten) {
  const Strings before = lines_of(tour), kinds = kinds_of(before);
  Strings now = lines_of(rewritten);
  if (before.size() != now.size()) return rewritten;  // other lines: what became of a number cannot be told
  std::map<std::string, std::set<std::string>> became;
  for (size_t k = 0; k < now.size(); ++k) {
    if (kinds[k] != "console") continue;
    const Strings a = matches(before[k], measured()), b = matches(now[k], measured());
    for (size_t i = 0; i < a.size() && a.size() == b.size(); ++i) became[a[i]].insert(b[i]);
  }
  for (size_t k = 0; k < now.size(); ++k) {
    if (kinds[k] == "console") continue;
    std::string line;
    std::sregex_iterator m(now[k].begin(), now[k].end(), measured());
    size_t from = 0;
    for (; m != std::sregex_iterator(); ++m) {
      const auto it = became.find(m->str());
      line += now[k].substr(from, size_t(m->position()) - from) +
              (it != became.end() && it->second.size() == 1 ? *it->second.begin() : m->str());
      from = size_t(m->position() + m->length());
    }
    now[k] = line + now[k].substr(from);
  }
  return text_of(now);
}

Strings differences(const std::string& tour, const std::string& rewritten) {
  const Strings a = lines_of(tour), b = lines_of(rewritten);
  Strings wrong;
  for (size_t k = 0; k < std::max(a.size(), b.size()) && wrong.size() < 20; ++k) {
    const Strings x = k < a.size() ? words_of(a[k]) : Strings{}, y = k < b.size() ? words_of(b[k]) : Strings{};
    if (x.size() == y.size() && std::equal(x.begin(), x.end(), y.begin(), same_word)) continue;
    wrong.push_back(fmt::format("line {}: the tour has '{}', the program prints '{}'", k + 1, k < a.size() ? a[k] : "",
                                k < b.size() ? b[k] : ""));
    if (a.size() != b.size()) break;  // all that follows is shifted
  }
  return wrong;
}

Strings wrong_numbers(const std::string& tour) {
  const Strings lines = lines_of(tour), kinds = kinds_of(lines);
  std::set<std::string> shown;
  for (size_t k = 0; k < lines.size(); ++k)
    if (kinds[k] == "console")
      for (const std::string& number : matches(lines[k], measured())) shown.insert(number);
  Strings wrong;
  for (size_t k = 0; k < lines.size(); ++k) {
    const auto complain = [&](const std::string& what) { wrong.push_back(fmt::format("line {}: {}", k + 1, what)); };
    if (kinds[k] == "console") continue;
    for (const std::string& number : matches(lines[k], measured()))
      if (!shown.count(number)) complain(number + " stands in no console block");
    if (kinds[k] != "worked") continue;
    Strings parts;
    size_t from = 0;
    for (size_t at = lines[k].find(" = "); at != std::string::npos; at = lines[k].find(" = ", from))
      parts.push_back(lines[k].substr(from, at - from)), from = at + 3;
    parts.push_back(lines[k].substr(from));
    if (parts.size() < 3) complain("a worked line is NAME = EXPRESSION = NUMBER");
    try {
      for (size_t i = 2; i < parts.size(); ++i) {
        const Bounded x = Expression(parts[i - 1]).value(), y = Expression(parts[i]).value();
        if (!(std::fabs(x.v - y.v) <= x.err + y.err + 1e-6 * (std::fabs(x.v) + std::fabs(y.v))))
          complain(fmt::format("'{}' is {:.7g}, not {}", parts[i - 1], x.v, parts[i]));
      }
    } catch (const std::runtime_error& e) { complain(e.what()); }
  }
  return wrong;
}

Strings wrong_names(const std::string& tour, const std::string& root) {
  static const std::regex quoted(R"(`([^`]+)`)"), link(R"(\]\(([^)#]+)(?:#[^)]*)?\))"), path(R"([\w.-]+(/[\w.-]+)+/?)"),
      test_name(R"(([A-Z]\w*)\.([A-Z]\w*))");
  std::set<std::string> operations;
#define CCDREC_NAME(name) operations.insert(#name);
  CCDREC_OPS(CCDREC_NAME)
#undef CCDREC_NAME
  const auto defines = [&](const std::string& file, const std::string& test) {
    const size_t dot = test.find('.');
    const std::string text = read_file(fs::path(root) / file),
                      names = test.substr(0, dot) + ", " + test.substr(dot + 1) + ")";
    for (const char* macro : {"\nTEST(", "\nTEST_F(", "\nTEST_P("})
      if (text.find(macro + names) != std::string::npos) return true;
    return false;
  };
  Strings all_tests;
  for (const auto& e : fs::recursive_directory_iterator(fs::path(root) / "tests"))
    if (e.path().string().ends_with("_test.cpp")) all_tests.push_back(fs::relative(e.path(), root).string());

  const Strings lines = lines_of(tour), kinds = kinds_of(lines);
  Strings wrong;
  struct Section {
    std::string title;
    bool code = false, test = false, numbers = false;
  };
  std::vector<Section> sections;
  for (size_t k = 0; k < lines.size(); ++k) {
    const auto complain = [&](const std::string& what) { wrong.push_back(fmt::format("line {}: {}", k + 1, what)); };
    if (kinds[k] == "console" && !sections.empty()) sections.back().numbers = true;
    if (!kinds[k].empty()) continue;
    if (lines[k].rfind("## ", 0) == 0) sections.push_back({lines[k].substr(3)});
    for (const std::string& target : matches(lines[k], link))
      if (target.find("://") == std::string::npos && !fs::exists(fs::path(root) / "docs" / target))
        complain(fmt::format("the link {} leads nowhere", target));
    const Strings names = matches(lines[k], quoted);
    Strings files, tests, others;
    for (const std::string& name : names) {
      if (std::regex_match(name, path) && name.rfind("build/", 0) != 0) {
        if (fs::exists(fs::path(root) / name))
          files.push_back(name);
        else
          complain(fmt::format("there is no file {}", name));
      } else if (std::regex_match(name, test_name)) {
        tests.push_back(name);
      } else {
        others.push_back(name);
      }
    }
    const bool where = lines[k].rfind("> ", 0) == 0;
    for (const std::string& test : tests) {
      const Strings& in = where ? files : all_tests;
      if (std::none_of(in.begin(), in.end(), [&](const std::string& f) { return defines(f, test); }))
        complain(fmt::format("no test {} in {}", test, where ? fmt::format("{}", fmt::join(files, ", ")) : "tests/"));
      if (!sections.empty()) sections.back().test = true;
    }
    if (!where) continue;
    if (lines[k].rfind("> - operation", 0) == 0)
      for (const std::string& name : matches(lines[k].substr(0, lines[k].find(':')), quoted))
        if (!operations.count(name)) complain(fmt::format("the catalogue has no operation {}", name));
    for (const std::string& name : others) {
      if (std::none_of(files.begin(), files.end(),
                       [&](const std::string& f) { return has_word(read_file(fs::path(root) / f), name); }))
        complain(fmt::format("{} is not in {}", name, fmt::join(files, ", ")));
      if (!sections.empty()) sections.back().code = true;
    }
  }
  for (const Section& s : sections)
    if (!s.title.empty() && std::isdigit(static_cast<unsigned char>(s.title[0])) && !(s.code && s.test && s.numbers))
      wrong.push_back(fmt::format("section '{}' lacks {}", s.title,
                                  !s.code   ? "the code"
                                  : !s.test ? "a test"
                                            : "numbers"));
  return wrong;
}

}  // namespace ccdrec::test
