#include "host/cli/cli.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <new>
#include <stdexcept>

#include "data/error.h"
#include "data/text.h"
#include "host/base/machine.h"
#include "host/base/progress.h"
#include "host/files/config.h"
#include "host/systems/registry.h"
#include "kernels/device_memory.h"

namespace ccdrec::cli {
namespace {

// CCDRec is the system that is put on others.
std::string about() {
  std::vector<std::string> others;
  for (const System& system : systems())
    if (!system.wraps) others.emplace_back(system.name);
  return fmt::format(
      "ccdrec trains, evaluates and serves CCDRec (curriculum conditioned diffusion for multimodal recommendation)\n"
      "and the systems it is compared with: {}.\n",
      fmt::join(others, ", "));
}
constexpr const char* kFirstSteps =
    "First steps\n"
    "  ccdrec synth demo --out demo             make a small data set\n"
    "  ccdrec train -m CCDRec -d demo --run-dir runs/first\n"
    "  ccdrec recommend runs/first --user 7     ten items for one user, by raw id\n"
    "  ccdrec compare runs/*                    a table of all runs\n\n"
    "Exit codes: 0 done, 2 mistake in the command, a file or a setting (one sentence says which), 3 out of memory or a "
    "fault of the program,\n"
    "4 training diverged, 130 interrupted after the state was saved.";

int out_of_memory(std::ostream& err) {
  err << "ccdrec: out of memory; `ccdrec train --plan` with the options of a run says what it takes and how much is "
         "free\n";
  return kFault;
}

// Met although the plan had found room: another program holds the memory, or a command other than train asked for it.
int out_of_device_memory(const DeviceOutOfMemory& e, std::ostream& err) {
  err << "ccdrec: out of memory on the GPU: " << e.call()
      << (e.asked() ? " asked for " + describe_bytes(e.asked()) : " found no room") << " and "
      << describe_bytes(e.free())
      << " are free; free the GPU of other programs, lower train_batch_size or embedding_size, or use --device cpu "
         "(`ccdrec train --plan` with the "
         "options of a run says what it takes and what would fit)\n";
  return kFault;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return printable(text);
}

// The first word, where it is no command; nothing: the parser's own sentence.
std::string unknown_command(CLI::App& app, int argc, const char* const* argv) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  const char* const* const word = std::find_if(argv + 1, argv + argc, [](const char* w) { return *w != '-'; });
  if (word == argv + argc || std::find(names.begin(), names.end(), *word) != names.end()) return {};
  const std::string near = nearest(*word, names);
  return "'" + shown(*word) + "' is no command" + (near.empty() ? "" : "; did you mean '" + near + "'?");
}

}  // namespace

int run_cli(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  // a file too large for the limit (ulimit -f): the write fails, and a sentence names the file
  std::signal(SIGXFSZ, SIG_IGN);
  Io io{out, err};
  io.out_tty = &out == &std::cout && draws(STDOUT_FILENO);
  io.err_tty = &err == &std::cerr && draws(STDERR_FILENO);
  const char* no_color = std::getenv("NO_COLOR");
  io.color = io.out_tty && !(no_color && *no_color);

  CLI::App app(about(), "ccdrec");
  app.footer(kFirstSteps);
  app.set_version_flag("--version", "ccdrec " + this_build().version + " (" + this_build().commit + ")");
  app.require_subcommand(1);
  app.fallthrough(false);
  app.get_formatter()->column_width(32);
  Action chosen;
  for (auto* add : {add_synth, add_train, add_sweep, add_reproduce, add_evaluate, add_recommend, add_export, add_check,
                    add_compare, add_info, add_case, add_step})
    add(app, chosen);
  try {
    if (argc <= 1) {
      out << app.help();
      return kUserMistake;
    }
    app.parse(argc, argv);
    const int code = chosen(io);
    out.flush();
    if (!out && code == kDone)
      throw UserError("the output could not be written (disk full, or the reader of a pipe has gone)");
    return code;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e, out, err);  // --help, --version
    const std::string word = app.get_subcommands().empty() ? unknown_command(app, argc, argv) : "";
    err << "ccdrec: " << (word.empty() ? one_line(e.what()) : word) << " (see `ccdrec";
    for (const CLI::App* sub : app.get_subcommands()) err << ' ' << sub->get_name();
    err << " --help`)\n";
    return kUserMistake;
  } catch (const UserError& e) {
    err << "ccdrec: " << one_line(e.what()) << '\n';
    return kUserMistake;
  } catch (const DeviceOutOfMemory& e) { return out_of_device_memory(e, err); } catch (const std::bad_alloc&) {
    return out_of_memory(err);
  } catch (const std::length_error&) {  // an array longer than any memory
    return out_of_memory(err);
  } catch (const std::logic_error& e) {
    err << "ccdrec: a fault of the program, not of its input: " << one_line(e.what())
        << "; please report it with the command\n";
    return kFault;
  } catch (const std::exception& e) {
    err << "ccdrec: " << one_line(e.what()) << '\n';
    return kUserMistake;
  }
}

}  // namespace ccdrec::cli
