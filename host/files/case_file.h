// A case of `ccdrec step` or `ccdrec reverse` as it is read (docs/step-format.md). Arrays and metadata are checked when
// they are asked for; what is wrong is a UserError: one sentence that names the file and the array, or the entry of the
// metadata.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "host/base/safetensors.h"
#include "host/base/settings.h"
#include "host/models/watch.h"

namespace ccdrec {

class CaseFile : public Given {
 public:
  CaseFile(const std::string& path, const std::string& format);
  std::string origin() const override { return path_; }

  Settings settings(int64_t d) const;  // width d is that of the arrays
  bool has_setting(const std::string& key) const;
  std::vector<std::string> modalities() const;  // distinct, at most kMaxModalities
  float gradient() const;                       // what Adam multiplies the gradient by
  int64_t t() const;                            // Adam's step, from 1

  bool has(const std::string& name) const override { return file_.tensors.count(name) != 0; }
  Extents shape(const std::string& name, const Extents& want) const;
  std::vector<float> floats(const std::string& name, const Extents& want) const override;
  std::vector<float> squares(const std::string& name, const Extents& want) const;  // floats, none negative
  std::vector<int32_t> indices(const std::string& name, const Extents& want, int64_t limit) const override;
  HostCsr sparse(const std::string& name, int64_t n) const;  // n x n; each cell named once
  // Of the arrays whose names begin with one of `parts`, each must be known, and moments come in pairs: a misspelt name
  // would be a zero otherwise.
  void check_names(const std::vector<std::string>& parts, const std::vector<std::string>& known) const;

 private:
  std::string meta(const std::string& key, const std::string& otherwise = "") const;
  nlohmann::json json(const std::string& key, const char* otherwise) const;
  const TensorData& at(const std::string& name) const;
  template <class T, class Narrow, class Wide>
  std::vector<T> either(const std::string& name, const char* narrow, const char* wide) const;
  std::vector<float> values(const std::string& name) const;
  std::string path_;
  TensorFile file_;
};

}  // namespace ccdrec
