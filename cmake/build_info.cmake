# build/generated/build_info.h: what `ccdrec info` and every run folder say about the build. No date: the same sources give the same bytes.
find_package(Git QUIET)
set(CCDREC_COMMIT "unknown")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty --abbrev=12 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
                  OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE git_failed)
  if(NOT git_failed)
    set(CCDREC_COMMIT "${described}")
  endif()
  # A new commit or checkout appends to this file; configuring again then refreshes the name.
  if(EXISTS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
  endif()
endif()

set(CCDREC_COMPILER "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}")
string(TOUPPER "${CMAKE_BUILD_TYPE}" build_type)
list(JOIN CCDREC_FLAG_LIST " " CCDREC_FLAGS)
string(STRIP "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${build_type}} ${OpenMP_CXX_FLAGS} ${CCDREC_FLAGS}" CCDREC_FLAGS)
string(REPLACE "\"" "\\\"" CCDREC_FLAGS "${CCDREC_FLAGS}")

configure_file(${PROJECT_SOURCE_DIR}/cmake/build_info.h.in ${PROJECT_BINARY_DIR}/generated/build_info.h @ONLY)
add_library(ccdrec_build_info INTERFACE)
target_include_directories(ccdrec_build_info INTERFACE ${PROJECT_BINARY_DIR}/generated)
