// What a user can cause (a bad file, a wrong key, a full disk): one sentence with file, line or field, what was
// expected and what to do. The command line prints it and exits with code 2; nothing half-written is left behind.
#pragma once
#include <stdexcept>
#include <string>

namespace ccdrec {
struct UserError : std::runtime_error {
  // what it quotes of files and their names is made printable(), data/text.h
  explicit UserError(const std::string& sentence);
};
}  // namespace ccdrec
