# bench_kernels: one line per operation. bench_epoch: whole epochs beside what the machine allows. OpenBLAS, where present, is the yardstick.
add_library(ccdrec_yardstick INTERFACE)
if(CCDREC_HAVE_OPENBLAS)
  target_include_directories(ccdrec_yardstick SYSTEM INTERFACE ${OPENBLAS_INCLUDE})
  target_link_libraries(ccdrec_yardstick INTERFACE ${OPENBLAS_LIBRARY})
endif()

# What the machine allows; contraction on, so that the loop of the fma ceiling is made of fma instructions.
if(EXISTS ${PROJECT_SOURCE_DIR}/bench/ceilings.cpp)
  set_source_files_properties(bench/ceilings.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=fast)
  add_library(ccdrec_ceilings STATIC bench/ceilings.cpp)
  target_link_libraries(ccdrec_ceilings PUBLIC ccdrec_kernels)
endif()

file(GLOB bench_sources CONFIGURE_DEPENDS bench/kernels/*_bench.cpp)
if(bench_sources)
  add_executable(bench_kernels ${bench_sources})
  target_link_libraries(bench_kernels PRIVATE ccdrec_ceilings ccdrec_data ccdrec_build_info ccdrec_yardstick fmt::fmt benchmark::benchmark benchmark::benchmark_main)
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/bench/epoch.cpp)
  add_executable(bench_epoch bench/epoch.cpp bench/epoch_report.cpp bench/floors.cpp)
  target_link_libraries(bench_epoch PRIVATE ccdrec_ceilings ccdrec_host)
endif()
