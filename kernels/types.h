// Views, lists and sparse matrices that every operation speaks. Views own nothing and are passed by value.
//
// Letters: U users, I items, N = U+I nodes, d embedding width, F feature width, B batch rows, M modalities, K = M+2
// tokens, T steps.
// All matrices are row-major float32 without padding. A view may point to device memory: only operations may read it.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define CCDREC_HD __host__ __device__
#else
#define CCDREC_HD
#endif

namespace ccdrec {

struct Mat {
  float* p = nullptr;
  int64_t rows = 0, cols = 0;
  CCDREC_HD float* row(int64_t r) const { return p + r * cols; }
  CCDREC_HD int64_t size() const { return rows * cols; }
  CCDREC_HD explicit operator bool() const { return p != nullptr; }
  // rows first .. first+n-1
  CCDREC_HD Mat slice(int64_t first, int64_t n) const { return {p + first * cols, n, cols}; }
};

struct CMat {
  const float* p = nullptr;
  int64_t rows = 0, cols = 0;
  CMat() = default;
  CCDREC_HD CMat(const float* p_, int64_t rows_, int64_t cols_) : p(p_), rows(rows_), cols(cols_) {}
  CCDREC_HD CMat(Mat m) : p(m.p), rows(m.rows), cols(m.cols) {}
  CCDREC_HD const float* row(int64_t r) const { return p + r * cols; }
  CCDREC_HD int64_t size() const { return rows * cols; }
  CCDREC_HD explicit operator bool() const { return p != nullptr; }
  CCDREC_HD CMat slice(int64_t first, int64_t n) const { return {p + first * cols, n, cols}; }
};

// A list of row indices whose length lives beside the data, on the device: a step never has to ask for it.
// `idx == nullptr` is the identity 0, 1, 2, ... Capacity is what the host knows: buffers are sized by it.
struct RowList {
  // ascending and distinct unless an operation says otherwise
  int32_t* idx = nullptr;
  int64_t* count = nullptr;  // entries in use
  int64_t capacity = 0;      // entries there is room for
  // inside an operation only: the data are the device's
  CCDREC_HD int32_t at(int64_t j) const { return idx ? idx[j] : int32_t(j); }
  CCDREC_HD int64_t n() const { return count ? *count : capacity; }  // likewise
};

// Compressed sparse rows. Columns ascend within a row; rows may be empty.
struct Csr {
  int64_t rows = 0, cols = 0;
  const int64_t* row_ptr = nullptr;  // (rows+1)
  const int32_t* col = nullptr;      // (nnz)
  const float* val = nullptr;        // (nnz), or null where only the pattern matters
  // row_ptr[rows] where the host knows it: a library asks; -1 where it does not (a graph pruned on the device)
  int64_t nnz = -1;
};

struct MutableCsr {  // room for a CSR that is built on the device, and again every epoch
  int64_t rows = 0, cols = 0;
  int64_t* row_ptr = nullptr;  // (rows+1)
  int32_t* col = nullptr;      // (capacity)
  float* val = nullptr;        // (capacity)
  int64_t capacity = 0;
};

// The slots of a batch grouped by the row they name: rows.idx[j] is named by slots slot[ptr[j]] .. slot[ptr[j+1]-1],
// ascending.
struct Groups {
  RowList rows;             // distinct ids, ascending
  int32_t* ptr = nullptr;   // (capacity+1)
  int32_t* slot = nullptr;  // (number of slots)
};

}  // namespace ccdrec
