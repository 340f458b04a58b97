# bench_kernels: one line per operation. bench_epoch: whole epochs beside what the machine allows. bench_race: epochs on command (bench/race.py). OpenBLAS, where present, is the yardstick.
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
  target_link_libraries(bench_kernels PRIVATE ccdrec_ceilings ccdrec_data ccdrec_gpu ccdrec_build_info ccdrec_yardstick fmt::fmt benchmark::benchmark benchmark::benchmark_main)
endif()
# What more than one of them or a test uses: their command line, callgrind's output and what it means; the work of an epoch and the reports.
ccdrec_join(bench_sources bench cpp 3 bench/arguments.cpp bench/callgrind.cpp bench/instructions_report.cpp)
add_library(ccdrec_bench STATIC ${bench_sources})
target_link_libraries(ccdrec_bench PUBLIC ccdrec_flags CLI11::CLI11 nlohmann_json::nlohmann_json fmt::fmt)
ccdrec_join(report_sources reports cpp 3 bench/epoch_report.cpp bench/work.cpp bench/gpu/agreement.cpp bench/gpu/report.cpp bench/gpu/noted.cpp bench/growth_report.cpp)
add_library(ccdrec_reports STATIC ${report_sources})
target_link_libraries(ccdrec_reports PUBLIC ccdrec_bench ccdrec_host)
if(EXISTS ${PROJECT_SOURCE_DIR}/bench/epoch.cpp)
  add_executable(bench_epoch bench/epoch.cpp)
  target_link_libraries(bench_epoch PRIVATE ccdrec_reports ccdrec_ceilings ccdrec_host ccdrec_gpu)
  add_executable(bench_race bench/race.cpp)
  # What a GPU allows, as bench_gpu measures it.
  if(CCDREC_HAVE_CUDA)
    add_library(ccdrec_this_gpu STATIC bench/gpu/this_gpu_cuda.cpp bench/gpu/clock_cuda.cpp bench/gpu/ceilings.cu)
    target_compile_options(ccdrec_this_gpu PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>)
    target_link_libraries(ccdrec_this_gpu PUBLIC ccdrec_host ccdrec_gpu CUDA::cudart_static)
  else()
    add_library(ccdrec_this_gpu STATIC bench/gpu/this_gpu_none.cpp)
    target_link_libraries(ccdrec_this_gpu PUBLIC ccdrec_host)
  endif()
  target_link_libraries(bench_race PRIVATE ccdrec_reports ccdrec_ceilings ccdrec_this_gpu ccdrec_host ccdrec_gpu)
endif()

# bench_instructions: an epoch in instructions. bench/instructions.sh builds it, portably; no other build needs it.
add_executable(bench_instructions EXCLUDE_FROM_ALL bench/instructions.cpp)
target_link_libraries(bench_instructions PRIVATE ccdrec_bench ccdrec_host ccdrec_gpu)

# bench_growth: epoch time and memory as the data grow.
add_executable(bench_growth bench/growth.cpp)
target_link_libraries(bench_growth PRIVATE ccdrec_reports ccdrec_ceilings ccdrec_host ccdrec_gpu)

# bench_busy: how often the threads of a step meet; bench/busy.py measures what that costs beside other programs.
add_executable(bench_busy bench/busy.cpp)
target_link_libraries(bench_busy PRIVATE ccdrec_bench ccdrec_host ccdrec_gpu)
target_link_options(bench_busy PRIVATE -Wl,--wrap=GOMP_parallel)

# bench_gpu: every operation on a GPU. bench_parity: CPU and GPU trained side by side. On the emulator both are only tried (scaled down), by a test.
# Compiled once, linked into a program for each.
file(GLOB bench_gpu_sources CONFIGURE_DEPENDS bench/gpu/*_bench.cpp)
add_library(ccdrec_gpu_benches OBJECT EXCLUDE_FROM_ALL ${bench_gpu_sources} bench/gpu/bench.cpp)
target_link_libraries(ccdrec_gpu_benches PRIVATE ccdrec_reports ccdrec_host)
add_library(ccdrec_gpu_parity OBJECT EXCLUDE_FROM_ALL bench/gpu/parity.cpp)
target_link_libraries(ccdrec_gpu_parity PRIVATE ccdrec_reports ccdrec_host)
if(CCDREC_HAVE_CUDA)
  add_executable(bench_gpu $<TARGET_OBJECTS:ccdrec_gpu_benches> bench/gpu/clock_cuda.cpp bench/gpu/ceilings.cu)
  target_compile_options(bench_gpu PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:${cuda_flags}>)
  target_link_libraries(bench_gpu PRIVATE ccdrec_reports ccdrec_host ccdrec_gpu CUDA::cudart_static)
  add_executable(bench_parity $<TARGET_OBJECTS:ccdrec_gpu_parity>)
  target_link_libraries(bench_parity PRIVATE ccdrec_reports ccdrec_host ccdrec_gpu)
endif()
if(CCDREC_HAVE_SIMT AND CCDREC_TESTS)
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/generated/simt/bench_ceilings.cpp CONTENT "#include \"bench/gpu/ceilings.cu\"\n")
  add_executable(bench_gpu_simt $<TARGET_OBJECTS:ccdrec_gpu_benches> bench/gpu/clock_simt.cpp ${PROJECT_BINARY_DIR}/generated/simt/bench_ceilings.cpp)
  target_compile_options(bench_gpu_simt PRIVATE -Wno-unknown-pragmas)
  target_link_libraries(bench_gpu_simt PRIVATE ccdrec_reports ccdrec_host ccdrec_simt)
  add_executable(bench_parity_simt $<TARGET_OBJECTS:ccdrec_gpu_parity>)
  target_link_libraries(bench_parity_simt PRIVATE ccdrec_reports ccdrec_host ccdrec_simt)
  add_dependencies(tests bench_gpu_simt bench_parity_simt)
  add_test(NAME bench_gpu_tried_on_the_emulator COMMAND bench_gpu_simt --scale 0.002)
  add_test(NAME bench_parity_tried_on_the_emulator COMMAND bench_parity_simt --preset tiny --epochs 2 --cache ${PROJECT_BINARY_DIR}/parity-data)
  set(tried bench_gpu_tried_on_the_emulator bench_parity_tried_on_the_emulator)
  foreach(precision tf32 bf16)
    add_test(NAME bench_parity_${precision}_tried_on_the_emulator
      COMMAND bench_parity_simt --preset tiny --epochs 1 --models BPR,FREEDOM,CCDRec --precision ${precision} --cache ${PROJECT_BINARY_DIR}/parity-data-${precision})
    list(APPEND tried bench_parity_${precision}_tried_on_the_emulator)
  endforeach()
  set_tests_properties(${tried} PROPERTIES LABELS fast COST 10 TIMEOUT 300 ENVIRONMENT "OMP_WAIT_POLICY=passive")
endif()

# What loops is in the libraries; these drive it and write reports.
foreach(driver ccdrec_bench ccdrec_reports bench_busy bench_epoch bench_race bench_growth ccdrec_gpu_benches ccdrec_gpu_parity bench_gpu bench_parity bench_gpu_simt bench_parity_simt)
  if(TARGET ${driver})
    target_compile_options(${driver} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
    if(CCDREC_PCH AND NOT ${driver} MATCHES "^bench_(gpu|parity)|^ccdrec_(bench|gpu_benches)$")
      target_precompile_headers(${driver} REUSE_FROM ccdrec_cli)  # optimised alike
    endif()
  endif()
endforeach()
