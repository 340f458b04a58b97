# Files compiled several at a time. Reading outside headers and instantiating their templates is most of what a file of the command line or of CUDA
# costs, and a group does it once. -DCCDREC_JOIN=OFF compiles every file for itself: the debug preset does, where one file is edited again and
# again, and so does `make lint`, which thereby finds a file that does not include what it uses.
option(CCDREC_JOIN "Compile several files at a time: quicker from nothing, slower after a small change" ON)

# OUT: generated files NAME_1.EXTENSION, ... that include FILES (relative to the source root), at most PER each.
function(ccdrec_generate out name extension per)
  if(NOT CCDREC_JOIN)
    set(per 1)
  endif()
  list(LENGTH ARGN count)
  math(EXPR units "(${count} + ${per} - 1) / ${per}")
  set(result "")
  foreach(unit RANGE 1 ${units})
    math(EXPR at "(${unit} - 1) * ${count} / ${units}")
    math(EXPR end "${unit} * ${count} / ${units}")
    set(text "")
    while(at LESS end)
      list(GET ARGN ${at} source)
      string(APPEND text "#include \"${source}\"\n")
      math(EXPR at "${at} + 1")
    endwhile()
    set(file ${PROJECT_BINARY_DIR}/generated/join/${name}_${unit}.${extension})
    file(GENERATE OUTPUT ${file} CONTENT "${text}")
    list(APPEND result ${file})
  endforeach()
  set(${out} ${result} PARENT_SCOPE)
endfunction()

# OUT: what to compile in the place of FILES.
function(ccdrec_join out name extension per)
  set(result ${ARGN})
  if(CCDREC_JOIN)
    ccdrec_generate(result ${name} ${extension} ${per} ${ARGN})
  endif()
  set(${out} ${result} PARENT_SCOPE)
endfunction()
