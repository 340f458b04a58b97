// What the tests of training share.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/training/trainer.h"
#include "tests/temp_folder.h"

namespace ccdrec::test {

struct Named {  // a setting of the models that a test goes through
  const char* name;
  void (*set)(Settings&);
};

// All that a state holds, tensor by tensor.
inline std::vector<unsigned char> state_bytes(Trainer& t, const Folder& dir) {
  t.save_state(dir / "state.safetensors");
  std::vector<unsigned char> all;
  for (const auto& [name, tensor] : read_safetensors(dir / "state.safetensors").tensors)
    all.insert(all.end(), tensor.bytes.begin(), tensor.bytes.end());
  EXPECT_GT(all.size(), 1000u);
  return all;
}

}  // namespace ccdrec::test
