// What tables call a system: FREEDOM, FREEDOM+DNS, MG (FREEDOM stepped by Mirror Gradient), MG+MixGCF, MG(LATTICE),
// CCDRec(LATTICE), CCDRec(MG); and, of CCDRec's modules some, the backbone with them: FREEDOM+DMA, FREEDOM+DMA+NDI.
#pragma once
#include <string>

#include "host/base/settings.h"

namespace ccdrec {

std::string label_of(const Settings&);
// What its name does not say: of CCDRec on MCDRec which parts of MCDRec it has, "DGD graph, attention". "": nothing.
std::string label_note(const Settings&);

}  // namespace ccdrec
