# Compiler flags. No -ffast-math anywhere: it removes the NaN checks the tests live on. Contraction is off so that a build for another
# -march rounds alike; kernels that want a fused multiply-add write std::fma.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release | Debug" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)  # for clang-tidy and editors
set(CMAKE_CXX_FLAGS_RELEASE "-O3")     # asserts stay: they cost nothing where they stand
set(CMAKE_CXX_FLAGS_DEBUG "-Og -g")
if(CCDREC_SANITIZE)
  set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")  # before the targets' own options, some of which say -O0
endif()

set(CCDREC_FLAG_LIST -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall -Wextra -Wshadow)
if(CCDREC_MARCH)
  list(PREPEND CCDREC_FLAG_LIST -march=${CCDREC_MARCH})
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 believes that small strings and buffers inlined from fmt and the standard library overflow or overlap; the address sanitizer watches for real ones.
  list(APPEND CCDREC_FLAG_LIST -Wno-stringop-overflow -Wno-restrict)
endif()
if(CCDREC_WERROR)
  list(APPEND CCDREC_FLAG_LIST -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  list(APPEND CCDREC_FLAG_LIST -D_GLIBCXX_ASSERTIONS)
endif()
if(CCDREC_SANITIZE)
  # A fifth of the compile time without what AddressSanitizer stops at as well (null, object-size, pointer-overflow) and without vptr.
  list(APPEND CCDREC_FLAG_LIST -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=null,object-size,pointer-overflow,vptr -fno-sanitize-recover=all
       -Wno-maybe-uninitialized)  # instrumented std::regex is warned about for nothing
  add_link_options(-fsanitize=address,undefined)
endif()

# GCC's OpenMP from the archive that comes with the compiler. kernels/cpu/threads.cpp decides how threads wait: before the library reads the environment,
# which a shared one does earlier than any code of the program runs.
set(CCDREC_STATIC_GOMP 0)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libgomp.a OUTPUT_VARIABLE gomp OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(IS_ABSOLUTE "${gomp}" AND EXISTS "${gomp}")
    set(OpenMP_gomp_LIBRARY "${gomp}")
    set(CCDREC_STATIC_GOMP 1)
  endif()
endif()
find_package(OpenMP REQUIRED COMPONENTS CXX)
add_library(ccdrec_flags INTERFACE)
target_compile_options(ccdrec_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${CCDREC_FLAG_LIST}>)
target_include_directories(ccdrec_flags INTERFACE ${PROJECT_SOURCE_DIR})  # includes are written from the repository root
target_link_libraries(ccdrec_flags INTERFACE OpenMP::OpenMP_CXX)  # its compile flag is for C++ alone
