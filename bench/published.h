// The published settings of a model (host/files/config.h), with nothing else set.
#pragma once
#include <string>

#include "host/files/config.h"

namespace ccdrec::bench {

inline Settings published(const std::string& model) {
  return resolve_config({}, {plain_value("model", model, "bench")}).settings;
}

}  // namespace ccdrec::bench
