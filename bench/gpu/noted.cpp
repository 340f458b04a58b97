#include "bench/gpu/noted.h"

namespace ccdrec::bench {
namespace {

const Ops* inner = nullptr;

// What stands in the table for the operation `member` called `name`.
template <auto member, const char* name>
struct Note;
template <class... A, void (*Ops::*member)(Ctx&, A...), const char* name>
struct Note<member, name> {
  static void call(Ctx& ctx, A... a) {
    if (noted().noting) noted().called.insert(name);
    (inner->*member)(ctx, a...);
  }
};
#define CCDREC_NAME(name) constexpr char k_##name[] = #name;
CCDREC_OPS(CCDREC_NAME)
#undef CCDREC_NAME

}  // namespace

const std::vector<Excuse>& excused() {
  static const std::vector<Excuse> none;
  return none;
}

Noted& noted() {
  static Noted n;
  return n;
}

const Ops& noted_ops(const Ops& table) {
  static Ops outer;
  inner = &table, outer = table;
#define CCDREC_NOTE(name) outer.name = Note<&Ops::name, k_##name>::call;
  CCDREC_OPS(CCDREC_NOTE)
#undef CCDREC_NOTE
  return outer;
}

std::vector<std::string> gaps(const std::set<std::string>& called, const std::vector<Excuse>& excuses) {
  std::set<std::string> open;
#define CCDREC_OPEN(name) open.insert(#name);
  CCDREC_OPS(CCDREC_OPEN)
#undef CCDREC_OPEN
  for (const std::string& op : called) open.erase(op);
  std::vector<std::string> found;
  for (const Excuse& e : excuses)
    if (!open.erase(e.op)) found.push_back(std::string(e.op) + " is excused without need (bench/gpu/noted.cpp)");
  for (const std::string& op : open) found.push_back(op + " is neither measured nor excused (bench/gpu/noted.cpp)");
  return found;
}

}  // namespace ccdrec::bench
