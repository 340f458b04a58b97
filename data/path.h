// Questions about a path that a user gave. No: there is nothing of that name. UserError: it cannot be said (a name too
// long, a folder that may not be entered, a circle of links), so that "there is no such run" is never said of a run
// that only may not be read.
#pragma once
#include <string>

namespace ccdrec {

bool path_exists(const std::string& path);  // links are followed
bool is_folder(const std::string& path);
std::string absolute_path(const std::string& path);  // without . and .. and slashes at the end

// A name that a file or a setting gives, as that of a file in a folder: without separators and control characters, and
// not hidden (. and .. neither).
bool is_plain_file_name(const std::string& name);

}  // namespace ccdrec
