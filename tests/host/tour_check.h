// The checker of docs/tour.md. A tour is Markdown with three kinds of text that can drift, and this finds where they
// did:
//
//   ```console   `$ build/ccdrec ARGUMENTS` or `$ cat FILE`, and what it prints. Run again: words must be equal,
//                numbers equal to their last digit but one unit, since another instruction set may round another way.
//   ```worked    NAME = EXPRESSION = NUMBER: must hold within the rounding of the numbers printed. Literals of four
//                decimals or more are such numbers, written with their sign (`+ -0.1234`); others are exact.
//   prose        Every number of four decimals or more must stand in a console block. A path in backticks must exist, a
//                test `Suite.Name` be in tests/.
//   > lines      say where a thing is. `- operation NAME, NAME: ...`: in the catalogue. Any other name in backticks: a
//                word of a file named in that line; a test: defined in one of them. Each numbered section names code
//                and a test, and shows numbers.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace ccdrec::test {

struct Ran {
  int code = 0;
  std::string out, err;
};
// of a command, its first word ("build/ccdrec", "cat") included
using Runner = std::function<Ran(const std::vector<std::string>& words)>;

// The tour with every console block as the program prints it now. A command that fails leaves its sentence in the
// block.
std::string rewritten(const std::string& tour, const Runner&);

// The same, and the numbers of the blocks that changed replaced in prose and worked lines, where what they became is
// unambiguous.
std::string updated(const std::string& tour, const std::string& rewritten);

// What is wrong, a sentence each, with the line of the tour; empty when nothing is.
std::vector<std::string> differences(const std::string& tour, const std::string& rewritten);
// worked lines, numbers in prose
std::vector<std::string> wrong_numbers(const std::string& tour);
// paths, operations, functions, tests
std::vector<std::string> wrong_names(const std::string& tour, const std::string& root);

}  // namespace ccdrec::test
