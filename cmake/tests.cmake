# One program per layer, one CTest entry per test. Suites named Slow... are labelled "slow", suites named Exhaustive... "exhaustive" (`make test-all`
# runs them, `make test` does not), all others "fast": the fast ones also run under the sanitizers. Discovery runs when ctest starts (PRE_TEST), so that a build does not execute what it builds.
include(GoogleTest)

# Not optimised: what computes is in the libraries; only the operation tests with their double-precision references are worth it. Containers are checked.
# The sanitizers look at what the tests call, not at the tests themselves: their build links the objects of the default one (CCDREC_TEST_OBJECTS, its
# folder), and `make sanitize` makes those first. Arrays on the heap are guarded all the same, whoever allocates them.
set(CCDREC_TEST_OBJECTS "${PROJECT_SOURCE_DIR}/build" CACHE PATH "Build folder whose objects of tests the sanitizers' build takes")
set(test_optimisation $<$<OR:$<CONFIG:Release>,$<BOOL:${CCDREC_SANITIZE}>>:-O0>)
add_custom_target(tests)  # what ctest runs; `make test` builds no more
add_custom_target(test_objects)

# OUT: what to link of SOURCES, tests that are compiled in the library NAME.
function(ccdrec_test_objects out name)
  cmake_parse_arguments(ARG "" "OPTIONS" "SOURCES;LINK;PCH" ${ARGN})
  set(${out} "" PARENT_SCOPE)
  if(NOT ARG_SOURCES)
    return()
  endif()
  if(CCDREC_SANITIZE)
    set(objects "")
    foreach(source ${ARG_SOURCES})
      string(REPLACE "${PROJECT_BINARY_DIR}/" "" source ${source})
      list(APPEND objects ${CCDREC_TEST_OBJECTS}/CMakeFiles/${name}.dir/${source}.o)
    endforeach()
    set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    set(${out} ${objects} PARENT_SCOPE)
    return()
  endif()
  add_library(${name} OBJECT ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} fmt::fmt GTest::gtest)
  target_compile_definitions(${name} PRIVATE _GLIBCXX_ASSERTIONS CCDREC_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  if(CCDREC_HAVE_SIMT)
    target_compile_definitions(${name} PRIVATE CCDREC_TEST_SIMT)
  endif()
  target_compile_options(${name} PRIVATE ${ARG_OPTIONS})
  if(ARG_PCH)
    ccdrec_pch(${name} ${CCDREC_STL} <gtest/gtest.h> ${ARG_PCH})
  endif()
  add_dependencies(test_objects ${name})
  set(${out} $<TARGET_OBJECTS:${name}> PARENT_SCOPE)
endfunction()

# JOIN of the GLOB are compiled at a time; OBJECTS are made elsewhere; HERE is compiled with the sanitizers, where those are.
function(ccdrec_tests name)
  cmake_parse_arguments(ARG "" "JOIN" "GLOB;HERE;LINK;OBJECTS;PCH" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${ARG_GLOB})
  if(ARG_JOIN)
    ccdrec_join(sources ${name} cpp ${ARG_JOIN} ${sources})
  endif()
  ccdrec_test_objects(objects ${name}_objects SOURCES ${sources} LINK ${ARG_LINK} PCH ${ARG_PCH} OPTIONS "${test_optimisation}")
  add_executable(${name} ${objects} ${ARG_OBJECTS} ${ARG_HERE})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(${name} PRIVATE ${ARG_LINK} fmt::fmt GTest::gtest GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${test_optimisation})
  add_dependencies(tests ${name})
  if(CCDREC_SANITIZE)
    # The libraries whole and before the tests: of an inline function that both contain, the linker takes the first, which shall be the one that is checked.
    list(TRANSFORM ARG_LINK REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE archives)
    list(JOIN archives "," archives)
    target_link_options(${name} PRIVATE "LINKER:--whole-archive,${archives},--no-whole-archive")
  endif()
  # Tests run side by side: threads that wait must not spin on the cores of the others. The slow ones start first (COST), so that all cores are busy to the end.
  set(common DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  gtest_discover_tests(${name} ${common} TEST_FILTER "-*Slow*:Exhaustive*" PROPERTIES LABELS fast TIMEOUT 300 ENVIRONMENT "OMP_WAIT_POLICY=passive")
  gtest_discover_tests(${name} ${common} TEST_FILTER "*Slow*" PROPERTIES LABELS slow COST 10 TIMEOUT 600 ENVIRONMENT "OMP_WAIT_POLICY=passive")
  gtest_discover_tests(${name} ${common} TEST_FILTER "Exhaustive*" PROPERTIES LABELS exhaustive TIMEOUT 1200 ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()

# The operation tests run over every device present: the CPU, and the CUDA kernels under the emulator where Boost.Context is found.
set(gpu_of_tests ccdrec_gpu)
set(simt_tests "")
set(simt_devices "")
set(planted "")
if(CCDREC_HAVE_SIMT)
  set(gpu_of_tests ccdrec_simt)
  set(simt_tests tests/simt/refused_test.cpp)
  set(simt_devices tests/simt/devices.cpp)
  set(planted tests/simt/simt_test.cpp)  # its planted kernels are what is checked, line numbers too
endif()
# Compiled once, linked into several programs: the devices are those of tests/support.cpp. Each file has a namespace of its own, so that they can be joined.
file(GLOB kernel_tests CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} tests/kernels/*_test.cpp)
ccdrec_join(kernel_tests kernel_tests cpp 4 ${kernel_tests})
ccdrec_test_objects(support ccdrec_test_support SOURCES tests/support.cpp ${simt_devices} LINK ccdrec_kernels OPTIONS "${test_optimisation}")
ccdrec_test_objects(kernel_objects ccdrec_kernel_tests SOURCES ${kernel_tests} LINK ccdrec_kernels PCH <fmt/format.h> OPTIONS "$<$<CONFIG:Release>:-O1>")
ccdrec_tests(test_kernels GLOB ${simt_tests} HERE ${planted} OBJECTS ${kernel_objects} ${support} LINK ${gpu_of_tests} ccdrec_kernels)
ccdrec_tests(test_data GLOB tests/data/*_test.cpp JOIN 3 LINK ccdrec_data ccdrec_kernels PCH <fmt/format.h>)
ccdrec_tests(test_host GLOB tests/host/*_test.cpp tests/host/tour_check.cpp JOIN 4 OBJECTS ${support} LINK ccdrec_cli ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels PCH <fmt/format.h> <nlohmann/json.hpp>)
# The worked examples of docs/adding.md.
ccdrec_tests(test_adding GLOB docs/adding/*.cpp tests/adding/*_test.cpp OBJECTS ${support} LINK ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels)
if(CCDREC_BENCH)
  ccdrec_tests(test_bench GLOB tests/bench/*_test.cpp JOIN 4 LINK ccdrec_reports ccdrec_bench ccdrec_ceilings ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels)
endif()
if(TARGET test_host AND TARGET ccdrec)
  add_dependencies(test_host ccdrec)  # some tests run the program itself
endif()

# The same operation tests on a GPU: `make test-cuda`. Without one it fails, which is why ctest does not list it.
if(CCDREC_HAVE_CUDA)
  # dialect_test.cu: what the emulator takes CUDA to mean, held against CUDA.
  add_executable(test_cuda $<TARGET_OBJECTS:ccdrec_kernel_tests> tests/support.cpp tests/cuda/devices.cpp tests/simt/dialect_test.cu)
  target_link_libraries(test_cuda PRIVATE ccdrec_gpu fmt::fmt GTest::gtest CUDA::cudart_static)
  target_compile_definitions(test_cuda PRIVATE CCDREC_TEST_CUDA CCDREC_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(test_cuda PRIVATE "$<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>")

  add_executable(test_toolkit tests/cuda/toolkit_test.cpp)
  target_link_libraries(test_toolkit PRIVATE ccdrec_gpu CUDA::cudart_static)
  add_dependencies(tests test_toolkit)
  add_test(NAME toolkit_libraries_load_on_demand COMMAND test_toolkit)
  set_tests_properties(toolkit_libraries_load_on_demand PROPERTIES LABELS fast TIMEOUT 60)
endif()
