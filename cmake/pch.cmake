# Precompiled headers: most of a file's compile time went into reading CLI11, nlohmann/json, fmt and gtest again. Only outside headers are listed,
# so that editing one of ours compiles what includes it and no more. A file still includes what it uses: -DCCDREC_PCH=OFF compiles without.
# Not where -O3 is used: GCC 12 no longer tells that code it took from a precompiled header is the library's, and gives its false warnings about it
# (-Warray-bounds inside std::string).
option(CCDREC_PCH "Precompiled headers" ON)
function(ccdrec_pch target)
  if(CCDREC_PCH)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()
set(CCDREC_STL <algorithm> <chrono> <cmath> <cstdint> <cstring> <filesystem> <fstream> <functional> <map> <memory> <numeric> <set> <sstream> <stdexcept> <string> <utility> <vector>)
