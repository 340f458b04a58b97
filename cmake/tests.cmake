# One program per layer, one CTest entry per test. Suites named Slow... are labelled "slow", all others "fast": the fast ones also run under
# the sanitizers. Discovery runs when ctest starts (PRE_TEST), so that a build does not execute what it builds.
include(GoogleTest)
function(ccdrec_tests name)
  cmake_parse_arguments(ARG "" "" "GLOB;LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${ARG_GLOB})
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${ARG_LINK} fmt::fmt GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE CCDREC_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CCDREC_PROGRAM="${PROJECT_BINARY_DIR}/ccdrec")
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # references and cases: built faster, run nearly as fast
  # Tests run side by side: threads that wait must not spin on the cores of the others.
  set(common DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  gtest_discover_tests(${name} ${common} TEST_FILTER "-*Slow*" PROPERTIES LABELS fast TIMEOUT 300 ENVIRONMENT "OMP_WAIT_POLICY=passive")
  gtest_discover_tests(${name} ${common} TEST_FILTER "*Slow*" PROPERTIES LABELS slow TIMEOUT 600 ENVIRONMENT "OMP_WAIT_POLICY=passive")
endfunction()

ccdrec_tests(test_kernels GLOB tests/kernels/*_test.cpp LINK ccdrec_kernels)
ccdrec_tests(test_data GLOB tests/data/*_test.cpp LINK ccdrec_data)
ccdrec_tests(test_host GLOB tests/host/*_test.cpp LINK ccdrec_host)
if(TARGET test_host AND TARGET ccdrec)
  add_dependencies(test_host ccdrec)  # some tests run the program itself
endif()
