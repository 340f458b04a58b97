// Raw features of a modality on the device, as they stand in their file.
#pragma once
#include "host/models/model.h"

namespace ccdrec {

void upload_features(const Setup&, const Feature&, Array<float>& to);  // I F floats
Matrix upload_features(const Setup&, const Feature&);                  // (I,F)

}  // namespace ccdrec
