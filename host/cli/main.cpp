#include <omp.h>

#include <iostream>

#include "host/base/machine.h"
#include "host/cli/cli.h"

int main(int argc, char** argv) {
  omp_set_num_threads(ccdrec::default_threads().n);  // of what no setting reaches: reading, hashing and making data
  return ccdrec::cli::run_cli(argc, argv, std::cout, std::cerr);
}
