// Which settings a search tries: the product of lists, or so many of its points drawn at random.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "host/files/config.h"

namespace ccdrec {

// "key=a,b,c": the values apart, commas within brackets left alone. UserError: no key, or a value that is empty.
GridAxis parse_axis(const std::string& text, const std::string& origin);

using Point = std::vector<KeyValue>;  // a value of every axis

constexpr size_t kMostPoints = 1'000'000;
// All points of the product, the first axis slowest; no axis: one point without values. UserError: more than
// kMostPoints.
std::vector<Point> points_of(const std::vector<GridAxis>&);
// `n` of `count` places, ascending, drawn without repetition by addressed chance: a larger n keeps those of a smaller.
std::vector<size_t> drawn(size_t count, size_t n, uint32_t seed);

struct Shard {
  int64_t index = 1, of = 1;  // the first of one: all
  bool has(size_t place) const { return int64_t(place % size_t(of)) == index - 1; }
};
Shard parse_shard(const std::string& text);  // "2/8"; UserError for anything else
// "1,2,3", distinct; UserError for anything else
std::vector<std::string> parse_seeds(const std::string& text);

std::string point_text(const Point&);  // "mu=0.5 omega=0.8"

}  // namespace ccdrec
