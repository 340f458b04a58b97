# The one block to read after configuring.
set(march "${CCDREC_MARCH}")
if(NOT march)
  set(march "(compiler's baseline)")
endif()
set(openblas "not found (the benches compare with nothing)")
if(CCDREC_HAVE_OPENBLAS)
  set(openblas "${OPENBLAS_LIBRARY} (benches only)")
endif()
set(waiting "of the compiler, linked statically: waiting threads make room for other programs")
if(NOT CCDREC_STATIC_GOMP)
  set(waiting "shared, as no libgomp.a of g++ was found: waiting threads do as it likes, which is slow beside other programs")
endif()
set(extras "")
foreach(extra TESTS BENCH WERROR SANITIZE)
  if(CCDREC_${extra})
    string(TOLOWER ${extra} extra)
    list(APPEND extras ${extra})
  endif()
endforeach()
list(JOIN extras ", " extras)
message(STATUS "
  ccdrec ${PROJECT_VERSION}  commit ${CCDREC_COMMIT}
    compiler   ${CCDREC_COMPILER}, ${CMAKE_BUILD_TYPE}
    -march     ${march}
    flags      ${CCDREC_FLAGS}
    with       ${extras}
    OpenMP     ${waiting}
    OpenBLAS   ${openblas}
    CUDA       ${CCDREC_CUDA_TEXT}
    emulator   ${CCDREC_SIMT_TEXT}
    build in   ${PROJECT_BINARY_DIR}
")
