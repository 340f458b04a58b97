# One program per layer, one CTest entry per test. Suites named Slow... are labelled "slow", suites named Exhaustive... "exhaustive" (`make test-all`
# runs them, `make test` does not), all others "fast": the fast ones also run under the sanitizers. Discovery runs when ctest starts (PRE_TEST), so that a build does not execute what it builds.
include(GoogleTest)

# Not optimised: what computes is in the libraries; only the operation tests with their double-precision references are worth it. The sanitizers look at
# what the tests call, not at the tests themselves, which would double their compile time; arrays on the heap are guarded all the same, whoever
# allocates them.
set(test_optimisation $<$<OR:$<CONFIG:Release>,$<BOOL:${CCDREC_SANITIZE}>>:-O0>)
add_custom_target(tests)  # what ctest runs; `make test` builds no more
if(CCDREC_SANITIZE)
  set_source_files_properties(tests/simt/simt_test.cpp PROPERTIES COMPILE_OPTIONS "-fsanitize=address,undefined;-g1")  # its planted kernels are what is checked, line numbers too
endif()
function(ccdrec_tests name)
  cmake_parse_arguments(ARG "" "JOIN" "GLOB;LINK;OBJECTS;PCH" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${ARG_GLOB})
  if(NOT sources)
    return()
  endif()
  if(ARG_JOIN)
    ccdrec_join(sources ${name} cpp ${ARG_JOIN} ${sources})
  endif()
  list(APPEND sources ${ARG_OBJECTS})
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} fmt::fmt GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE CCDREC_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CCDREC_PROGRAM="${PROJECT_BINARY_DIR}/ccdrec")
  target_compile_options(${name} PRIVATE ${test_optimisation})
  set_target_properties(${name} PROPERTIES CCDREC_IS_TEST ON)  # cmake/flags.cmake
  add_dependencies(tests ${name})
  if(CCDREC_SANITIZE)
    # The libraries whole and before the tests: of an inline function that both contain, the linker takes the first, which shall be the one that is checked.
    list(TRANSFORM ARG_LINK REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE archives)
    list(JOIN archives "," archives)
    target_link_options(${name} PRIVATE "LINKER:--whole-archive,${archives},--no-whole-archive")
  endif()
  if(ARG_PCH)
    ccdrec_pch(${name} ${CCDREC_STL} <gtest/gtest.h> ${ARG_PCH})
  endif()
  # Tests run side by side: threads that wait must not spin on the cores of the others.
  set(common DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  gtest_discover_tests(${name} ${common} TEST_FILTER "-*Slow*:Exhaustive*" PROPERTIES LABELS fast TIMEOUT 300 ENVIRONMENT "OMP_WAIT_POLICY=passive")
  gtest_discover_tests(${name} ${common} TEST_FILTER "*Slow*" PROPERTIES LABELS slow TIMEOUT 600 ENVIRONMENT "OMP_WAIT_POLICY=passive")
  gtest_discover_tests(${name} ${common} TEST_FILTER "Exhaustive*" PROPERTIES LABELS exhaustive TIMEOUT 1200 ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()

# The operation tests run over every device present: the CPU, and the CUDA kernels under the emulator where Boost.Context is found.
set(gpu_of_tests ccdrec_gpu)
set(simt_tests "")
if(CCDREC_HAVE_SIMT)
  set(gpu_of_tests ccdrec_simt)
  set(simt_tests tests/simt/simt_test.cpp tests/simt/refused_test.cpp tests/simt/devices.cpp)
endif()
# Compiled once, linked into two programs: the devices are those of tests/support.cpp.
file(GLOB kernel_tests CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} tests/kernels/*_test.cpp)
ccdrec_join(kernel_tests kernel_tests cpp 4 ${kernel_tests})  # each file has a namespace of its own
add_library(ccdrec_kernel_tests OBJECT ${kernel_tests})
target_link_libraries(ccdrec_kernel_tests PRIVATE ccdrec_kernels GTest::gtest)
target_compile_definitions(ccdrec_kernel_tests PRIVATE CCDREC_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
target_compile_options(ccdrec_kernel_tests PRIVATE $<$<CONFIG:Release>:-O1>)  # -O1 under the sanitizers too
set_target_properties(ccdrec_kernel_tests PROPERTIES CCDREC_IS_TEST ON)
ccdrec_pch(ccdrec_kernel_tests ${CCDREC_STL} <gtest/gtest.h>)
ccdrec_tests(test_kernels GLOB tests/support.cpp ${simt_tests} OBJECTS $<TARGET_OBJECTS:ccdrec_kernel_tests> LINK ${gpu_of_tests} ccdrec_kernels)
ccdrec_tests(test_data GLOB tests/data/*_test.cpp JOIN 3 LINK ccdrec_data ccdrec_kernels PCH <fmt/format.h>)
ccdrec_tests(test_host GLOB tests/host/*_test.cpp tests/host/tour_check.cpp tests/support.cpp JOIN 4 LINK ccdrec_cli ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels PCH <fmt/format.h> <nlohmann/json.hpp>)
# The worked examples of docs/adding.md.
ccdrec_tests(test_adding GLOB docs/adding/*.cpp tests/adding/*_test.cpp tests/support.cpp LINK ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels)
if(CCDREC_BENCH)
  ccdrec_tests(test_bench GLOB tests/bench/*_test.cpp JOIN 4 LINK ccdrec_reports ccdrec_bench ccdrec_ceilings ccdrec_host ccdrec_data ${gpu_of_tests} ccdrec_kernels)
endif()
if(CCDREC_HAVE_SIMT)
  target_sources(test_host PRIVATE tests/simt/devices.cpp)
  target_sources(test_adding PRIVATE tests/simt/devices.cpp)
  target_compile_definitions(test_adding PRIVATE CCDREC_TEST_SIMT)
  target_compile_definitions(test_kernels PRIVATE CCDREC_TEST_SIMT)
  target_compile_definitions(test_host PRIVATE CCDREC_TEST_SIMT)
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
