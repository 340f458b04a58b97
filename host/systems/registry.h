// The systems by name, a line each: what each holds, and how it is made. Nothing else compares the names of models.
#pragma once
#include <memory>
#include <string>

#include "host/models/model.h"
#include "host/models/outline.h"

namespace ccdrec {

// UserError for a name that is none, from all of them.
Outline outline_of(const Settings&);
void check_system(const Settings&, const Dataset&);  // UserError: settings of the system that the data or the device cannot serve
std::unique_ptr<Model> make_system(const Setup&);

}  // namespace ccdrec
