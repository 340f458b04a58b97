#include <iostream>

#include "host/cli/cli.h"

int main(int argc, char** argv) { return ccdrec::cli::run_cli(argc, argv, std::cout, std::cerr); }
