// `ccdrec step` and `ccdrec reverse` on cases with one thing wrong: exit code 2, one sentence that names the file and
// the field, no result, and the case as it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/host/command.h"

namespace ccdrec::test {
namespace {
namespace fs = std::filesystem;

using Shape64 = std::vector<int64_t>;

// ---- ways to spoil a case

void put(TensorFile& f, const std::string& array, size_t k, float x) {
  std::memcpy(f.tensors.at(array).bytes.data() + 4 * k, &x, 4);
}
void put_index(TensorFile& f, const std::string& array, size_t k, int64_t x) {
  TensorData& t = f.tensors.at(array);
  const size_t bytes = t.dtype == "I64" ? 8 : 4;
  std::memcpy(t.bytes.data() + bytes * k, &x, bytes);  // little-endian: the low bytes come first
}
void put_floats(TensorFile& f, const std::string& array, const Shape64& shape, float x) {
  TensorData& t = f.tensors[array];
  size_t n = 1;
  for (const int64_t extent : shape) n *= size_t(extent);
  t.dtype = "F32", t.shape = shape;
  t.bytes.assign(4 * n, 0);
  for (size_t k = 0; k < n; ++k) put(f, array, k, x);
}
void scale(TensorFile& f, const std::string& array, float by) {
  TensorData& t = f.tensors.at(array);
  for (size_t k = 0; k < t.bytes.size() / 4; ++k) put(f, array, k, t.f32()[k] * by);
}
void rename(TensorFile& f, const std::string& from, const std::string& to) {
  f.tensors[to] = f.tensors.at(from);
  f.tensors.erase(from);
}
void scalar(TensorFile& f, const std::string& array) {
  TensorData& t = f.tensors.at(array);
  t.shape = {};
  t.bytes.resize(t.dtype == "I64" ? 8 : 4);
}
// The first `d` columns alone: a table of a narrower model. The sentence comes before any other array is looked at.
void narrow(TensorFile& f, const std::string& array, int64_t d) {
  TensorData& t = f.tensors.at(array);
  t.shape[1] = d;
  t.bytes.resize(size_t(t.shape[0] * d) * 4);
}
void narrow_tables(TensorFile& f, int64_t d) {
  for (const char* table : {"param.item_id_embedding.weight", "param.user_embedding.weight"})
    if (f.tensors.count(table)) narrow(f, table, d);
}
void many_modalities(TensorFile& f) {
  std::string names;
  for (int k = 0; k < 40; ++k) names += (k ? ",\"m" : "\"m") + std::to_string(k) + "\"";
  f.metadata["modalities"] = "[" + names + "]";
}

struct BadCase {
  const char* name;
  std::string expected;
  std::function<void(TensorFile&)> spoil;
};

void write(const std::string& path, const TensorFile& f) {
  std::vector<TensorView> views;
  for (const auto& [name, t] : f.tensors) views.push_back({name, t.dtype, t.shape, t.bytes.data()});
  write_safetensors(path, views, f.metadata);
}

TensorFile golden(const std::string& name) {
  return read_safetensors(std::string(CCDREC_SOURCE_DIR) + "/tests/golden/" + name + ".case.safetensors");
}

void expect_sentence(const Result& r, const std::string& expected) {
  EXPECT_EQ(r.code, 2) << r.err;
  EXPECT_EQ(r.out, "");
  EXPECT_TRUE(r.err.starts_with("ccdrec: ")) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_TRUE(has(r.err, expected)) << r.err << "wanted: " << expected;
  for (const char* foreign : {"fault", "checkpoint", "run folder", "vector::"})
    EXPECT_FALSE(has(r.err, foreign)) << r.err;
}

void expect_sentences(const std::string& command, const std::string& good, const std::vector<BadCase>& cases) {
  const TensorFile valid = golden(good);
  for (const BadCase& c : cases) {
    SCOPED_TRACE(command + ", " + good + ": " + c.name);
    const Folder dir;
    TensorFile f = valid;
    c.spoil(f);
    write(dir / "case", f);
    const std::string before = dir.read("case");
    const Result r = run({command, "--in", dir / "case", "--out", dir / "result", "--threads", "1"});
    expect_sentence(r, c.expected);
    EXPECT_TRUE(has(r.err, dir / "case")) << r.err;
    EXPECT_EQ(dir.names(), std::vector<std::string>{"case"});
    EXPECT_TRUE(dir.read("case") == before) << "the case has changed";
  }
}

// ---- what is wrong with a case of either command

const std::string kQ = "param.item_id_embedding.weight", kP = "param.user_embedding.weight";

const std::vector<BadCase> both = {
    {"another format", "format = 'something', expected 'ccdrec-",
     [](TensorFile& f) { f.metadata["format"] = "something"; }},
    {"a format of two lines", "format = 'some?thing'", [](TensorFile& f) { f.metadata["format"] = "some\nthing"; }},
    {"another version", "version = '2', this program reads version 1",
     [](TensorFile& f) { f.metadata["version"] = "2"; }},
    {"settings are not JSON", "'settings' is not JSON", [](TensorFile& f) { f.metadata["settings"] = "[1"; }},
    {"settings are a list", "'settings' is [1], expected a JSON object",
     [](TensorFile& f) { f.metadata["settings"] = "[1]"; }},
    {"a key is misspelt", "case: settings: unknown key 'omga'; did you mean 'omega'?",
     [](TensorFile& f) { f.metadata["settings"] = "{\"omga\": 1}"; }},
    {"a key is out of range", "case: settings: mu = 2 is not a number in [0, 1]",
     [](TensorFile& f) { f.metadata["settings"] = "{\"mu\": 2}"; }},
    {"a value is a list", "settings: model is [\"CCDRec\"], expected one text, number, true or false",
     [](TensorFile& f) { f.metadata["settings"] = "{\"model\": [\"CCDRec\"]}"; }},
    {"a value is a list in a text", "settings: model = [CCDRec] is not one of",
     [](TensorFile& f) { f.metadata["settings"] = "{\"model\": \"[CCDRec]\"}"; }},
    {"a value is null", "settings: model is null", [](TensorFile& f) { f.metadata["settings"] = "{\"model\": null}"; }},
    {"a key stands twice", "'settings' names a key twice",
     [](TensorFile& f) { f.metadata["settings"] = R"({"model": "CCDRec", "model": "BPR"})"; }},
    {"heads that do not divide d", "settings: estimator_heads is 3, expected a divisor of embedding_size, 8",
     [](TensorFile& f) {
       f.metadata["settings"] = R"({"model": "CCDRec", "estimator": "transformer", "estimator_heads": 3})";
     }},
    {"t is a word", "t = 'zero' is no step from 1 to 1000000", [](TensorFile& f) { f.metadata["t"] = "zero"; }},
    {"t has a rest", "t = '7abc'", [](TensorFile& f) { f.metadata["t"] = "7abc"; }},
    {"t is no integer", "t = '1.5'", [](TensorFile& f) { f.metadata["t"] = "1.5"; }},
    {"t is 0", "t = '0'", [](TensorFile& f) { f.metadata["t"] = "0"; }},
    {"t is too late", "t = '1000001'", [](TensorFile& f) { f.metadata["t"] = "1000001"; }},
    {"modalities are not JSON", "'modalities' is not JSON", [](TensorFile& f) { f.metadata["modalities"] = "text"; }},
    {"modalities are one text", "'modalities' is \"text\", expected a list",
     [](TensorFile& f) { f.metadata["modalities"] = "\"text\""; }},
    {"a modality is a number", "7 is no name", [](TensorFile& f) { f.metadata["modalities"] = "[7]"; }},
    {"a modality twice", "text stands twice", [](TensorFile& f) { f.metadata["modalities"] = "[\"text\",\"text\"]"; }},
    {"a modality with the name of a table", "choose another name",
     [](TensorFile& f) { f.metadata["modalities"] = "[\"user\"]"; }},
    {"no modality", "'modalities' names none", [](TensorFile& f) { f.metadata["modalities"] = "[]"; }},
    {"40 modalities", "there are 40, at most 8", many_modalities},
    {"Q is a number", "'" + kQ + "' has shape (), expected (>=1,>=1)", [](TensorFile& f) { scalar(f, kQ); }},
    {"Q has no row", "'" + kQ + "' has shape (0,8)",
     [](TensorFile& f) {
       put_floats(f, kQ, {0, 8}, 0);
     }},
    {"odd width", "needs an even width of at least 4", [](TensorFile& f) { narrow_tables(f, 7); }},
    {"width 2", "needs an even width of at least 4", [](TensorFile& f) { narrow_tables(f, 2); }},
    {"Q is missing", "array '" + kQ + "' is missing", [](TensorFile& f) { f.tensors.erase(kQ); }},
    {"Q has another type", "'" + kQ + "' has type I32, expected F32 or F64",
     [](TensorFile& f) { f.tensors.at(kQ).dtype = "I32"; }},
    {"a NaN", "'" + kQ + "' is not finite at position 3", [](TensorFile& f) { put(f, kQ, 3, NAN); }},
    {"features without columns", "'param.text_embedding.weight' has shape (11,0), expected (11,>=1)",
     [](TensorFile& f) {
       put_floats(f, "param.text_embedding.weight", {11, 0}, 0);
     }},
    {"a projection of another width", "'param.text_trs.weight' has shape (8,5), expected (8,6)",
     [](TensorFile& f) {
       put_floats(f, "param.text_trs.weight", {8, 5}, 0);
     }},
    {"an unknown parameter",
     "array 'param.text_trs.bais' is none that such a case holds, did you mean 'param.text_trs.bias'?",
     [](TensorFile& f) { put_floats(f, "param.text_trs.bais", {8}, 0); }},
    {"a name of two lines", "array 'param.text?trs.bias' is none",
     [](TensorFile& f) { put_floats(f, "param.text\ntrs.bias", {8}, 0); }},
};

TEST(BadCase, OfEitherCommandIsOneSentence) {
  expect_sentences("step", "ccdrec_moments", both);
  expect_sentences("reverse", "reverse_T5", both);
}

TEST(BadCase, OfAStepIsOneSentence) {
  expect_sentences(
      "step", "ccdrec_moments",
      {
          {"users are a number", "'batch.users' has shape (), expected (>=1)",
           [](TensorFile& f) { scalar(f, "batch.users"); }},
          {"no users", "'batch.users' has shape (0)",
           [](TensorFile& f) { f.tensors.at("batch.users").shape = {0}, f.tensors.at("batch.users").bytes.clear(); }},
          {"P is a number", "'" + kP + "' has shape (), expected (>=1,8)", [](TensorFile& f) { scalar(f, kP); }},
          {"P of another width", "'" + kP + "' has shape (9,7), expected (>=1,8)",
           [](TensorFile& f) { narrow(f, kP, 7); }},
          {"users are missing", "array 'batch.users' is missing",
           [](TensorFile& f) { f.tensors.erase("batch.users"); }},
          {"a user out of range", "'batch.users' has -1 at position 2, expected 0 to 8",
           [](TensorFile& f) { put_index(f, "batch.users", 2, -1); }},
          {"an item out of range", "has 1000 at position 0, expected 0 to 10",
           [](TensorFile& f) { put_index(f, "batch.positives", 0, 1000); }},
          {"an array of other items", "'diffusion.items' is not the ascending list",
           [](TensorFile& f) { put_index(f, "diffusion.items", 0, 10); }},
          {"a step of the diffusion out of range", "'diffusion.t' has 20 at position 1, expected 0 to 19",
           [](TensorFile& f) { put_index(f, "diffusion.t", 1, 20); }},
          {"noise of another shape", "'diffusion.noise' has shape (4,16), expected (8,8)",
           [](TensorFile& f) {
             put_floats(f, "diffusion.noise", {4, 16}, 0);
           }},
          {"the graph is not symmetric", "'graph.user_item' is not symmetric",
           [](TensorFile& f) { put(f, "graph.user_item.value", 0, 0.123f); }},
          {"the graph is a number", "'graph.user_item.value' has shape (), expected (1)",
           [](TensorFile& f) { scalar(f, "graph.user_item.value"); }},
          {"a cell twice", "'graph.item_item' names the cell (0,",
           [](TensorFile& f) {
             TensorData& t = f.tensors.at("graph.item_item.index");
             const size_t nnz = size_t(t.shape[1]);
             for (const size_t e : {size_t(0), size_t(1)})
               put_index(f, "graph.item_item.index", e, 0), put_index(f, "graph.item_item.index", nnz + e, 1);
           }},
          {"a misspelt optional array",
           "array 'batch.curricluar' is none that such a case holds, did you mean 'batch.curricular'?",
           [](TensorFile& f) { rename(f, "batch.curricular", "batch.curricluar"); }},
          {"a misspelt moment", "did you mean 'adam.m.text_embedding.weight'?",
           [](TensorFile& f) { rename(f, "adam.m.text_embedding.weight", "adam.m.text_embeding.weight"); }},
          {"m without v", "'adam.m.estimator.w_q.weight' is given without 'adam.v.estimator.w_q.weight'",
           [](TensorFile& f) { f.tensors.erase("adam.v.estimator.w_q.weight"); }},
          {"v without m", "'adam.v.user_embedding.weight' is given without 'adam.m.user_embedding.weight'",
           [](TensorFile& f) { f.tensors.erase("adam.m.user_embedding.weight"); }},
          {"a negative v of a table",
           "'adam.v.item_id_embedding.weight' has -1 at position 5, expected a mean of squares",
           [](TensorFile& f) { put(f, "adam.v.item_id_embedding.weight", 5, -1); }},
          {"a negative v of a map", "'adam.v.text_trs.weight' has -0.5 at position 0",
           [](TensorFile& f) { put(f, "adam.v.text_trs.weight", 0, -0.5f); }},
          {"frozen rows that nothing reads", "'batch.frozen' is given, but only NDI",
           [](TensorFile& f) {
             put_floats(f, "batch.frozen", {7, 8}, 0);
           }},
          {"frozen rows are missing", "'batch.frozen' is missing",
           [](TensorFile& f) { f.metadata["settings"] = R"({"model": "CCDRec", "cns": false})"; }},
          {"no module has curricular negatives", "'batch.curricular' is given, but the model has neither NDI nor CNS",
           [](TensorFile& f) { f.metadata["settings"] = R"({"model": "CCDRec", "ndi": false, "cns": false})"; }},
          {"parameters beyond float32's range", "'score.positives' of the result is ",
           [](TensorFile& f) { scale(f, kP, 1e30f), scale(f, kQ, 1e30f); }},
          {"P alone is too large", "of the result is ", [](TensorFile& f) { scale(f, kP, 1e38f); }},
          {"a learning rate beyond float32's range", "'new.user_embedding.weight' of the result is ",
           [](TensorFile& f) { f.metadata["settings"] = R"({"model": "CCDRec", "learning_rate": 1e300})"; }},
      });
  expect_sentences(
      "step", "freedom",
      {{"FREEDOM's items in another order", "'diffusion.items' is not the ascending list",
        [](TensorFile& f) { put_index(f, "diffusion.items", 0, 1), put_index(f, "diffusion.items", 1, 0); }}});
  expect_sentences("step", "bpr",
                   {{"a width that the model can have, and an array it does not",
                     "'param.text_embedding.weight' is none", [](TensorFile& f) {
                       put_floats(f, "param.text_embedding.weight", {11, 4}, 0);
                     }}});
}

// Another value of a setting that the case names, or another setting.
std::function<void(TensorFile&)> with_setting(const std::string& key, const nlohmann::json& value) {
  return [=](TensorFile& f) {
    nlohmann::json settings = nlohmann::json::parse(f.metadata.at("settings"));
    settings[key] = value;
    f.metadata["settings"] = settings.dump();
  };
}
std::function<void(TensorFile&)> with_gradient(const std::string& text) {
  return [=](TensorFile& f) { f.metadata["gradient"] = text; };
}

// Lists of one item fewer.
void shorten_lists(TensorFile& f, const std::string& array) {
  TensorData& t = f.tensors.at(array);
  const int64_t rows = t.shape[0], k = t.shape[1];
  const size_t size = t.dtype == "I64" ? 8 : 4;
  std::vector<unsigned char> kept;
  for (int64_t r = 0; r < rows; ++r)
    kept.insert(kept.end(), t.bytes.begin() + r * k * int64_t(size), t.bytes.begin() + (r * k + k - 1) * int64_t(size));
  t.shape[1] = k - 1, t.bytes = kept;
}
// One entry that is no loop: its edge is left in the other direction.
void drop_a_direction(TensorFile& f, const std::string& graph) {
  TensorData &value = f.tensors.at(graph + ".value"), &place = f.tensors.at(graph + ".index");
  const int64_t nnz = value.shape[0], size = place.dtype == "I64" ? 8 : 4;
  const auto at = [&](int64_t k) { return place.bytes.begin() + k * size; };
  int64_t e = 0;
  while (std::equal(at(e), at(e + 1), at(nnz + e))) ++e;
  place.bytes.erase(at(nnz + e), at(nnz + e + 1));
  place.bytes.erase(at(e), at(e + 1));
  value.bytes.erase(value.bytes.begin() + 4 * e, value.bytes.begin() + 4 * (e + 1));
  value.shape = {nnz - 1}, place.shape = {2, nnz - 1};
}
std::function<void(TensorFile&)> without(const std::string& array) {
  return [=](TensorFile& f) { f.tensors.erase(array); };
}

// Wrong of the first batch of an epoch, whose lists alone are given, and of a later one.
std::vector<BadCase> bad_lattice_cases() {
  const std::string learned = "graph.learned.", frozen = "graph.frozen.", image = "image.index", text = "text.index";
  std::vector<BadCase> all;
  for (const std::string& array :
       {learned + image, learned + text, frozen + image, frozen + text, frozen + "text.value"})
    all.push_back({"a list is missing", "array '" + array + "' is missing", without(array)});
  for (const std::string& array : {learned + image, learned + text, frozen + image, frozen + text})
    for (const int64_t id : {int64_t(11), int64_t(-1), int64_t(2000000000)})
      all.push_back({"an item that is none",
                     "'" + array + "' has " + std::to_string(id) + " at position 4, expected 0 to 10",
                     [=](TensorFile& f) { put_index(f, array, 4, id); }});
  for (const std::string& array : {learned + image, learned + text, frozen + "image.value", frozen + "text.value"})
    all.push_back({"lists of two items", "'" + array + "' has shape (11,2), expected (11,3)",
                   [=](TensorFile& f) { shorten_lists(f, array); }});
  all.push_back({"frozen lists of two items, of the second modality alone",
                 "'graph.frozen.text.index' has shape (11,2), expected (11,3)", [](TensorFile& f) {
                   shorten_lists(f, "graph.frozen.text.index"), shorten_lists(f, "graph.frozen.text.value");
                 }});
  all.push_back({"more rows than a batch has", "settings: train_batch_size is 6, but the batch has 7 rows",
                 with_setting("train_batch_size", 6)});
  all.push_back({"an edge in one direction", "'graph.user_item' has an edge in one direction alone",
                 [](TensorFile& f) { drop_a_direction(f, "graph.user_item"); }});
  return all;
}

TEST(BadCase, OfALearnedGraphIsOneSentence) {
  const auto together = [](const std::string& list) {
    return "'graph.learned." + list + ".value' and 'graph.modal_weight' go together";
  };
  std::vector<BadCase> cases = bad_lattice_cases();
  cases.push_back({"weights without values", together("image"),
                   [](TensorFile& f) { put_floats(f, "graph.modal_weight", {2}, 0.5f); }});
  cases.push_back({"values of one modality, no weights", together("text"), [](TensorFile& f) {
                     put_floats(f, "graph.learned.text.value", {11, 3}, 0.5f);
                   }});
  expect_sentences("step", "lattice", cases);
  cases = bad_lattice_cases();
  cases.push_back({"values without weights", together("image"), without("graph.modal_weight")});
  for (const std::string list : {"image", "text"})
    cases.push_back({"values are missing", together(list), without("graph.learned." + list + ".value")});
  cases.push_back({"weights of three modalities", "'graph.modal_weight' has shape (3), expected (2)",
                   [](TensorFile& f) { put_floats(f, "graph.modal_weight", {3}, 0.3f); }});
  cases.push_back({"values of two items", "'graph.learned.text.value' has shape (11,2), expected (11,3)",
                   [](TensorFile& f) { shorten_lists(f, "graph.learned.text.value"); }});
  expect_sentences("step", "lattice_later", cases);
}

// A mean has a value of its own in either direction: it is no fault that they differ.
TEST(BadCase, AGraphOfMeansNeedsNoEqualValues) {
  const Folder dir;
  TensorFile f = golden("lattice_later");
  put(f, "graph.user_item.value", 0, 0.123f);
  write(dir / "case", f);
  const Result r = run({"step", "--in", dir / "case", "--out", dir / "result", "--threads", "1"});
  EXPECT_EQ(r.code, 0) << r.err;
}

TEST(BadCase, OfAGradientIsOneSentence) {
  expect_sentences("step", "bpr_mg_second",
                   {
                       {"a word", "the metadata gradient = 'minus' is no finite number", with_gradient("minus")},
                       {"nothing", "the metadata gradient = '' is no finite number", with_gradient("")},
                       {"a rest", "gradient = '-0.2x'", with_gradient("-0.2x")},
                       {"two lines", "gradient = '1?2'", with_gradient("1\n2")},
                       {"no number", "gradient = 'nan'", with_gradient("nan")},
                       {"infinite", "gradient = '-inf'", with_gradient("-inf")},
                       {"beyond float32's range", "gradient = '1e39'", with_gradient("1e39")},
                       {"beyond any range", "gradient = '1e999'", with_gradient("1e999")},
                   });
}

TEST(BadCase, OfHardNegativesIsOneSentence) {
  const BadCase misspelt = {"a misspelt array",
                            "array 'hard.item' is none that such a case holds, did you mean 'hard.items'?",
                            [](TensorFile& f) { rename(f, "hard.items", "hard.item"); }};
  const BadCase without_sampler = {"items without a sampler", "'hard.items' is given, but the settings name no sampler",
                                   with_setting("sampler", "none")};
  const BadCase without_weight = {"items with omega 0", "'hard.items' is given, but omega = 0 leaves no hard negative",
                                  with_setting("omega", 0)};
  const auto alpha_alone = [](std::function<void(TensorFile&)> spoil) {
    return [=](TensorFile& f) { f.tensors.erase("hard.items"), spoil(f); };
  };
  expect_sentences(
      "step", "lightgcn_dns",
      {
          misspelt,
          without_sampler,
          without_weight,
          {"items are missing", "array 'hard.items' is missing", [](TensorFile& f) { f.tensors.erase("hard.items"); }},
          {"an item out of range", "'hard.items' has 11 at position 3, expected 0 to 10",
           [](TensorFile& f) { put_index(f, "hard.items", 3, 11); }},
          {"items without a list", "'hard.items' has shape (7), expected (1,7)",
           [](TensorFile& f) { f.tensors.at("hard.items").shape = {7}; }},
          {"items for mixgcf", "'hard.items' has shape (1,7), expected (3,7)", with_setting("sampler", "mixgcf")},
          {"shares for realhns", "'hard.alpha' is given, but only the sampler mixgcf reads it",
           [](TensorFile& f) {
             with_setting("sampler", "realhns")(f);
             put_floats(f, "hard.alpha", {3, 7}, 0.5f);
           }},
          {"shares that nothing reads", "'hard.alpha' is given, but only the sampler mixgcf reads it",
           [](TensorFile& f) {
             put_floats(f, "hard.alpha", {3, 7}, 0.5f);
           }},
          {"curricular negatives beside a sampler",
           "'batch.curricular' is given, but the model has neither NDI nor CNS",
           [](TensorFile& f) { f.tensors["batch.curricular"] = f.tensors.at("batch.positives"); }},
      });
  expect_sentences(
      "step", "freedom_mixgcf",
      {
          misspelt,
          without_sampler,
          without_weight,
          {"items of two layers", "'hard.items' has shape (3,8), expected (2,8)", with_setting("n_ui_layers", 1)},
          {"items for dns", "'hard.alpha' is given, but only the sampler mixgcf reads it",
           with_setting("sampler", "dns")},
          {"shares without a sampler", "'hard.alpha' is given, but the settings name no sampler",
           alpha_alone(with_setting("sampler", "none"))},
          {"shares with omega 0", "'hard.alpha' is given, but omega = 0 leaves no hard negative",
           alpha_alone(with_setting("omega", 0))},
          {"shares are missing", "array 'hard.alpha' is missing", [](TensorFile& f) { f.tensors.erase("hard.alpha"); }},
          {"a misspelt share", "array 'hard.alhpa' is none that such a case holds, did you mean 'hard.alpha'?",
           [](TensorFile& f) { rename(f, "hard.alpha", "hard.alhpa"); }},
          {"a share above 1", "'hard.alpha' holds 1.25", [](TensorFile& f) { put(f, "hard.alpha", 5, 1.25f); }},
          {"a share below 0", "'hard.alpha' holds -0.5", [](TensorFile& f) { put(f, "hard.alpha", 0, -0.5f); }},
          {"a share that is no number", "'hard.alpha' is not finite at position 23",
           [](TensorFile& f) { put(f, "hard.alpha", 23, NAN); }},
      });
  expect_sentences("step", "ccdrec",
                   {{"items beside CNS", "'hard.items' is given, but the settings name no sampler",
                     [](TensorFile& f) { f.tensors["hard.items"] = f.tensors.at("batch.negatives"); }}});
}

// With omega 0 there is no hard negative, and a case needs none.
TEST(BadCase, WithoutWeightNoHardNegativeIsNeeded) {
  const Folder dir;
  for (const char* name : {"lightgcn_dns", "freedom_mixgcf"}) {
    TensorFile f = golden(name);
    f.tensors.erase("hard.items"), f.tensors.erase("hard.alpha");
    with_setting("omega", 0)(f);
    write(dir / "with", f);
    with_setting("sampler", "none")(f);
    write(dir / "without", f);
    for (const char* of : {"with", "without"}) {
      const Result r = run({"step", "--in", dir / of, "--out", (dir / of) + ".result", "--threads", "1"});
      EXPECT_EQ(r.code, 0) << r.err;
    }
    const TensorFile with = read_safetensors(dir / "with.result"), without = read_safetensors(dir / "without.result");
    for (const auto& [array, t] : without.tensors) {
      ASSERT_TRUE(with.tensors.count(array)) << array;
      EXPECT_EQ(with.tensors.at(array).bytes, t.bytes) << name << ": " << array;
    }
  }
}

TEST(BadCase, OfTheReverseProcessIsOneSentence) {
  expect_sentences(
      "reverse", "reverse_T5",
      {
          {"a case of a step", "format = 'ccdrec-step', expected 'ccdrec-reverse'",
           [](TensorFile& f) { f = golden("ccdrec"); }},
          {"no diffusion", "has no diffusion",
           [](TensorFile& f) { f.metadata["settings"] = "{\"model\": \"LightGCN\"}"; }},
          {"noise is a number", "'noise.start' has shape (), expected (11,8)",
           [](TensorFile& f) { scalar(f, "noise.start"); }},
          {"noise of other steps", "'noise.steps' has shape (5,11,8), expected (4,11,8)",
           [](TensorFile& f) { f.metadata["settings"] = R"({"model": "CCDRec", "timesteps": 4})"; }},
          {"noise is missing", "array 'noise.steps' is missing", [](TensorFile& f) { f.tensors.erase("noise.steps"); }},
          {"noise that is not read", "'noise.strat' is none that such a case holds, did you mean 'noise.start'?",
           [](TensorFile& f) {
             put_floats(f, "noise.strat", {11, 8}, 0);
           }},
          {"the estimator is missing", "'param.estimator.w_q.weight' is missing",
           [](TensorFile& f) { f.tensors.erase("param.estimator.w_q.weight"); }},
          {"a projection beyond float32's range", "' of the result is ",
           [](TensorFile& f) {
             put_floats(f, "param.text_trs.weight", {8, 6}, 3e38f);
           }},
      });
}

// What is wrong with the words, not with the case.
TEST(BadCase, OddWordsAreOneSentenceAndLeaveTheCase) {
  const Folder dir;
  write(dir / "case", golden("ccdrec"));
  fs::create_symlink(dir / "case", dir / "link");
  dir.write("short", "abc");
  const std::string before = dir.read("case");
  const std::vector<std::string> names = dir.names();
  struct Words {
    std::vector<std::string> more;
    const char* expected;
  };
  for (const Words& w :
       {Words{{"--in", dir / "case", "--out", dir / "case"}, "that is the case itself; name another file"},
        Words{{"--in", dir / "case", "--out", dir / "link"}, "that is the case itself"},
        Words{{"--in", dir / "case", "--out", dir / "result", "--threads", "-1"}, "--threads"},
        Words{{"--in", dir / "case", "--out", dir / "result", "--threads", "100000000"}, "--threads"},
        Words{{"--in", dir / "case", "--out", dir / "result", "--device", "tpu"}, "expected auto, cpu or cuda"},
        Words{{"--in", dir / "case", "--out", dir / "result", "--print", "e_tt"}, "did you mean 'e_t'?"},
        Words{{"--in", dir / "case", "--out", dir.path()}, "name a file"},
        Words{{"--in", dir / "case", "--out", dir / "none/result"}, "its folder cannot be used"},
        Words{{"--in", dir / "case", "--out", "/proc/result"}, "choose another place"},
        Words{{"--in", dir / "none", "--out", dir / "result"}, "cannot be opened"},
        Words{{"--in", dir.path(), "--out", dir / "result"}, "not a regular file"},
        Words{{"--in", dir / "short", "--out", dir / "result"}, "not a usable safetensors file"}}) {
    std::vector<std::string> words = {"step"};
    words.insert(words.end(), w.more.begin(), w.more.end());
    if (!has(w.expected, "--threads")) words.insert(words.end(), {"--threads", "1"});
    SCOPED_TRACE(w.expected);
    expect_sentence(run(words), w.expected);
    EXPECT_EQ(dir.names(), names);
    EXPECT_TRUE(dir.read("case") == before);
  }
}

// Arrays that a case may hold and the model does not read: the same result as without.
TEST(BadCase, UnreadArraysOfTheFormatChangeNothing) {
  const Folder dir;
  TensorFile f = golden("freedom_reg0");
  write(dir / "with", f);
  for (const char* end : {"image_trs.weight", "image_trs.bias", "text_trs.weight", "text_trs.bias"})
    f.tensors.erase("param." + std::string(end));
  put_floats(f, "cns.pool", {3}, 1);
  put_floats(f, "my.notes", {3}, NAN);
  write(dir / "without", f);
  for (const char* name : {"with", "without"}) {
    const Result r = run({"step", "--in", dir / name, "--out", (dir / name) + ".result", "--threads", "1"});
    EXPECT_EQ(r.code, 0) << r.err;
  }
  expect_same_tensors(dir / "with.result", dir / "without.result");
}

// The features pass through no folder: one that TMPDIR names wrongly is not asked for.
TEST(BadCase, NoTemporaryFolderIsNeeded) {
  const char* const set = std::getenv("TMPDIR");
  const std::string had = set ? set : "";
  ::setenv("TMPDIR", "/no/such/folder", 1);
  const Result r = run({"step", "--in", std::string(CCDREC_SOURCE_DIR) + "/tests/golden/ccdrec.case.safetensors",
                        "--print", "loss.total"});
  if (set)
    ::setenv("TMPDIR", had.c_str(), 1);
  else
    ::unsetenv("TMPDIR");
  EXPECT_EQ(r.code, 0) << r.err;
}

}  // namespace
}  // namespace ccdrec::test
