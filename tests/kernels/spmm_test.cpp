#include "kernels/spmm.h"

#include <algorithm>

#include "tests/kernels/graphs.h"

namespace ccdrec::test::spmm_test {
namespace {

struct Case {
  const char* name;
  int64_t R, N, d, longest;
};
const Case kCases[] = {{"no rows", 0, 7, 64, 0},
                       {"only empty rows", 5, 5, 64, 0},
                       {"one element", 1, 1, 1, 1},
                       {"odd width", 33, 20, 37, 5},
                       {"two blocks and a tail", 40, 30, 137, 9},
                       {"one row owns all edges", 2, 4000, 64, 4000},
                       {"popular", 500, 300, 64, 250},
                       {"narrow", 70, 50, 8, 20}};

std::vector<Ref> product(const TestCsr& a, const std::vector<float>& x, int64_t d,
                         const std::vector<uint8_t>* mask = nullptr) {
  std::vector<Ref> y(size_t(a.rows * d));
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t e = a.row_ptr[size_t(r)]; e < a.row_ptr[size_t(r) + 1]; ++e) {
      const int64_t c = a.col[size_t(e)];
      if (mask && !(*mask)[size_t(c)]) continue;
      for (int64_t j = 0; j < d; ++j) y[size_t(r * d + j)].add(double(a.val[size_t(e)]) * x[size_t(c * d + j)]);
    }
  return y;
}
std::vector<Ref> plus(const std::vector<float>& y0, std::vector<Ref> y) {
  for (size_t i = 0; i < y.size(); ++i) y[i].add(y0[i]);
  return y;
}

// Whose products a device can run: ours, and on a GPU built with it, or the emulated one, cuSPARSE's.
struct Way {
  SpmmBy by;
  const char* name;
};
std::vector<Way> ways(const Device& dev) {
  std::vector<Way> all = {{SpmmBy::own, "own"}};
  if (dev.family != "cpu" && gpu_info().cusparse) all.push_back({SpmmBy::cusparse, "cusparse"});
  return all;
}

TEST(Spmm, ForwardAndBackwardMatchDoubleReference) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = skewed_csr(g, c.R, c.N, c.longest), at = a.transposed();
    const auto x = g.floats(c.N * c.d), dy = g.floats(c.R * c.d), dx0 = g.floats(c.N * c.d);
    SameBits same;
    for (const Device& dev : devices())
      for (const Way& way : ways(dev)) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name + ", " + way.name);
        DeviceCtx ctx(dev);
        ctx.get().spmm = way.by;
        std::vector<float> y(size_t(c.R * c.d), NAN), dx = dx0;
        dev.ops->spmm(ctx, mat(y, c.R, c.d), a.view(), cmat(x, c.N, c.d), false);
        dev.ops->spmm(ctx, mat(dx, c.N, c.d), at.view(), cmat(dy, c.R, c.d), true);
        EXPECT_TRUE(close(y, product(a, x, c.d), 5e-7));
        EXPECT_TRUE(close(dx, plus(dx0, product(at, dy, c.d)), 5e-7));
        double by_y = 0, by_x = 0, mass = 0;  // <dy, A x> = <A^T dy, x>
        for (size_t i = 0; i < y.size(); ++i) by_y += double(dy[i]) * y[i], mass += std::fabs(double(dy[i]) * y[i]);
        for (size_t i = 0; i < dx.size(); ++i) by_x += (double(dx[i]) - dx0[i]) * x[i];
        EXPECT_LE(std::fabs(by_y - by_x), 1e-5 * mass + 1e-30);
        EXPECT_TRUE(same(dev, std::string("y, ") + way.name, y));
        EXPECT_TRUE(same(dev, std::string("dx, ") + way.name, dx));
      }
  }
}

// Our order of a sum, bit for bit: one fma chain an element on the CPU; on a GPU chains over pieces of 256 edges, whose
// sums are added in order.
TEST(Spmm, RowsAreSummedInOrderLongOnesInPiecesOf256Edges) {
  constexpr int64_t kPiece = 256, N = 2300, d = 6;
  // of short ones, reads go out 8 or 4 at a time
  const std::vector<int64_t> edges = {1, 3, 4, 5, 7, 8, 9, 12, 13, 33, 255, 256, 257, 512, 2049};
  Draw g;
  TestCsr a;
  a.rows = int64_t(edges.size()), a.cols = N, a.row_ptr = {0};
  for (const int64_t n : edges) {
    for (int64_t e = 0; e < n; ++e) a.col.push_back(int32_t(e)), a.val.push_back(g.floats(1)[0]);
    a.row_ptr.push_back(int64_t(a.col.size()));
  }
  const auto x = g.floats(N * d);
  const auto summed = [&](int64_t piece) {
    std::vector<float> y;
    for (int64_t r = 0; r < a.rows; ++r)
      for (int64_t j = 0; j < d; ++j) {
        const int64_t first = a.row_ptr[size_t(r)], end = a.row_ptr[size_t(r) + 1];
        const auto chain = [&](int64_t from, int64_t to) {
          float sum = 0;
          for (int64_t e = from; e < to; ++e)
            sum = std::fma(a.val[size_t(e)], x[size_t(a.col[size_t(e)] * d + j)], sum);
          return sum;
        };
        float sum = chain(first, std::min(end, first + piece));
        for (int64_t e = first + piece; e < end; e += piece) sum += chain(e, std::min(end, e + piece));
        y.push_back(sum);
      }
    return y;
  };
  ASSERT_NE(summed(kPiece), summed(N));  // the case can tell them apart
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    ctx.get().spmm = SpmmBy::own;
    std::vector<float> y(size_t(a.rows * d), NAN);
    dev.ops->spmm(ctx, mat(y, a.rows, d), a.view(), cmat(x, N, d), false);
    EXPECT_EQ(y, summed(dev.family == "cpu" ? N : kPiece));
  }
}

// A recorded product takes the memory its first run took, and reads what lies there when it is replayed: another graph
// of the same sizes, too.
TEST(Spmm, RecordedItIsTheDirectOne) {
  Draw g;
  const int64_t R = 300, N = 200, d = 64;
  TestCsr a = skewed_csr(g, R, N, 150);
  std::vector<float> x = g.floats(N * d);
  for (const Device& dev : devices())
    for (const Way& way : ways(dev)) {
      if (!dev.ops->record) continue;
      SCOPED_TRACE(dev.name + ", " + way.name);
      DeviceCtx ctx(dev);
      ctx.get().spmm = way.by;
      std::vector<float> y(size_t(R * d), NAN);
      const auto call = [&] { dev.ops->spmm(ctx, mat(y, R, d), a.view(), cmat(x, N, d), false); };
      call();
      dev.ops->wait(ctx);
      void* const recorded = dev.ops->record(ctx, call);
      for (const bool other : {false, true}) {
        if (other) {
          std::reverse(a.val.begin(), a.val.end());
          for (float& v : x) v = 1 - v;
        }
        std::vector<float> direct(y.size(), NAN);
        dev.ops->spmm(ctx, mat(direct, R, d), a.view(), cmat(x, N, d), false);
        dev.ops->wait(ctx);
        std::fill(y.begin(), y.end(), NAN);
        dev.ops->replay(ctx, recorded);
        dev.ops->wait(ctx);
        EXPECT_TRUE(close(y, product(a, x, d), 5e-7));
        EXPECT_EQ(y, direct);
      }
      dev.ops->forget(ctx, recorded);
    }
}

// What cuSPARSE cannot take is computed all the same: edges that the host has not counted, a list of rows, masked
// columns.
TEST(Spmm, WhereCusparseCannotServeTheProductIsOurs) {
  Draw g;
  const int64_t R = 40, N = 600, d = 64;
  const TestCsr a = skewed_csr(g, R, N, 600);
  const auto x = g.floats(N * d);
  const std::vector<uint8_t> mask(size_t(N), uint8_t(1));
  Csr uncounted = a.view();
  uncounted.nnz = -1;
  for (const Device& dev : devices()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    std::vector<float> own(size_t(R * d), NAN), by_list = own, masked = own, without = own;
    ctx.get().spmm = SpmmBy::own;
    dev.ops->spmm(ctx, mat(own, R, d), a.view(), cmat(x, N, d), false);
    ctx.get().spmm = SpmmBy::cusparse;
    dev.ops->spmm(ctx, mat(without, R, d), uncounted, cmat(x, N, d), false);
    dev.ops->spmm_rows(ctx, mat(by_list, R, d), a.view(), cmat(x, N, d), RowList{nullptr, nullptr, R}, nullptr, false);
    dev.ops->spmm_rows(ctx, mat(masked, R, d), a.view(), cmat(x, N, d), RowList{nullptr, nullptr, R}, mask.data(),
                       false);
    EXPECT_EQ(without, own);
    EXPECT_EQ(by_list, own);
    EXPECT_EQ(masked, own);
  }
}

TEST(Spmm, ListedRowsAndMaskedColumns) {
  for (const Case& c : kCases) {
    Draw g;
    const TestCsr a = skewed_csr(g, c.R, c.N, c.longest);
    const auto x = g.floats(c.N * c.d), y0 = g.floats(c.R * c.d);
    std::vector<uint8_t> mask(size_t(std::max<int64_t>(c.N, 1)));
    for (auto& m : mask) m = uint8_t(3 * g.below(2));  // any byte but 0
    std::vector<float> x_nan = x, x_zero = x;          // masked columns are not read
    for (int64_t n = 0; n < c.N; ++n)
      for (int64_t j = 0; !mask[size_t(n)] && j < c.d; ++j)
        x_nan[size_t(n * c.d + j)] = NAN, x_zero[size_t(n * c.d + j)] = 0;
    std::vector<int32_t> listed;
    for (int64_t r = 0; r < c.R; ++r)
      if (g.below(3) != 0) listed.push_back(int32_t(r));
    for (const Device& dev : devices())
      for (bool accumulate : {false, true}) {
        SCOPED_TRACE(std::string(c.name) + " on " + dev.name);
        DeviceCtx ctx(dev);
        ctx.get().spmm = SpmmBy::own;  // of which listed rows have the bits
        OwnedList rows(listed);
        std::vector<float> y = y0, full = y0;
        dev.ops->spmm_rows(ctx, mat(y, c.R, c.d), a.view(), cmat(x_nan, c.N, c.d), rows.list(), mask.data(),
                           accumulate);
        dev.ops->spmm(ctx, mat(full, c.R, c.d), a.view(), cmat(x_zero, c.N, c.d), accumulate);
        size_t at = 0;
        for (int64_t r = 0; r < c.R; ++r) {
          const bool in = at < listed.size() && listed[at] == r;
          at += in;
          for (int64_t j = 0; j < c.d; ++j)
            ASSERT_EQ(y[size_t(r * c.d + j)], in ? full[size_t(r * c.d + j)] : y0[size_t(r * c.d + j)])
                << r << "," << j;
        }
        EXPECT_TRUE(close(full, accumulate ? plus(y0, product(a, x, c.d, &mask)) : product(a, x, c.d, &mask), 5e-7));
      }
  }
}

// Rows of a table that no cache holds may be asked for otherwise (kernels/cpu/fast/sparse_row.h): every bit as from the
// table of the rows that are read.
TEST(Spmm, RowsOfALargeTable) {
  constexpr int64_t N = 140000, R = 90, d = 64;  // 36 MB
  Draw g;
  const TestCsr narrow = skewed_csr(g, R, 700, 300);
  TestCsr wide = narrow;
  wide.cols = N;
  for (int32_t& c : wide.col) c *= 200;
  const auto few = g.floats(700 * d);
  std::vector<float> x(size_t(N * d), NAN);
  std::vector<uint8_t> mask(700), mask_wide(static_cast<size_t>(N));
  for (int64_t c = 0; c < 700; ++c) {
    mask_wide[size_t(200 * c)] = mask[size_t(c)] = uint8_t(g.below(2));
    std::copy_n(&few[size_t(c * d)], d, &x[size_t(200 * c * d)]);
  }
  OwnedList some(std::vector<int32_t>{0, 3, 4, 40, 89});
  for (const Device& dev : devices()) {
    if (dev.family != "cpu") continue;
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    for (const RowList rows : {RowList{nullptr, nullptr, R}, some.list()})
      for (const bool masked : {false, true}) {
        std::vector<float> y(size_t(R * d), 7.0f), y_wide = y;
        dev.ops->spmm_rows(ctx, mat(y, R, d), narrow.view(), cmat(few, 700, d), rows, masked ? mask.data() : nullptr,
                           false);
        dev.ops->spmm_rows(ctx, mat(y_wide, R, d), wide.view(), cmat(x, N, d), rows,
                           masked ? mask_wide.data() : nullptr, false);
        EXPECT_EQ(y, y_wide);
      }
  }
}

// A matrix whose rows hold any columns in any order, some of them twice; low columns are popular, rows and columns may
// be empty.
TestCsr unordered_csr(Draw& g, int64_t rows, int64_t cols, int64_t longest) {
  TestCsr a;
  a.rows = rows, a.cols = cols;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<std::pair<int32_t, float>> row;
    for (int64_t n = cols == 0 || r % 7 == 3 ? 0 : g.below(int32_t(longest) + 1); n > 0; --n) {
      const float u = g.uniform(0, 1);
      row.emplace_back(std::min(int32_t(double(u) * u * double(cols)), int32_t(cols - 1)), g.uniform());
    }
    a.push(row);
  }
  return a;
}

TEST(Transpose, IsStableInAnyOrderOfColumnsOnEveryDevice) {
  struct Shape {
    const char* name;
    int64_t R, N, longest;
  };
  for (const Shape& c :
       {Shape{"no rows", 0, 7, 3}, Shape{"no columns", 5, 0, 3}, Shape{"nothing at all", 0, 0, 0},
        Shape{"only empty rows", 5, 9, 0}, Shape{"one column", 40, 1, 3}, Shape{"one row", 1, 300, 500},
        Shape{"columns mostly empty", 30, 900, 4}, Shape{"blocks and a tail", 257, 128, 20},
        Shape{"lists of 40 of 3000 items", 3000, 3000, 40}}) {
    Draw g;
    const TestCsr a = unordered_csr(g, c.R, c.N, c.longest), want = a.transposed();
    const size_t nnz = size_t(a.nnz());
    for (const Device& dev : devices())
      for (const bool values : {true, false}) {
        SCOPED_TRACE(std::string(c.name) + (values ? " on " : ", the pattern, on ") + dev.name);
        DeviceCtx ctx(dev);
        Csr from = a.view();
        if (!values) from.val = nullptr;
        std::vector<int64_t> row_ptr(size_t(c.N + 1), -1);
        std::vector<int32_t> col(nnz + 3, -1);
        std::vector<float> val(nnz + 3, -7.0f);
        const MutableCsr out{c.N, c.R, row_ptr.data(), col.data(), values ? val.data() : nullptr, int64_t(nnz) + 3};
        dev.ops->transpose(ctx, out, from);
        EXPECT_EQ(row_ptr, want.row_ptr);
        for (size_t behind = nnz; behind < nnz + 3; ++behind) EXPECT_TRUE(col[behind] == -1 && val[behind] == -7.0f);
        col.resize(nnz), val.resize(nnz);
        EXPECT_EQ(col, want.col);
        EXPECT_EQ(val, values ? want.val : std::vector<float>(nnz, -7.0f));
      }
  }
}

TEST(Transpose, RefusesWhatDoesNotFit) {
  Draw g;
  const TestCsr a = skewed_csr(g, 40, 50, 30);
  std::vector<int64_t> row_ptr(51);
  std::vector<int32_t> col(static_cast<size_t>(a.nnz()));
  std::vector<float> val(col.size());
  const MutableCsr out{50, 40, row_ptr.data(), col.data(), val.data(), a.nnz()};
  for (const Device& dev : one_of_each_family()) {
    SCOPED_TRACE(dev.name);
    DeviceCtx ctx(dev);
    Csr uncounted = a.view();
    uncounted.nnz = -1;
    EXPECT_THROW(dev.ops->transpose(ctx, out, uncounted), std::logic_error);
    MutableCsr small = out, narrow = out;
    --small.capacity, --narrow.cols;
    EXPECT_THROW(dev.ops->transpose(ctx, small, a.view()), std::logic_error);
    EXPECT_THROW(dev.ops->transpose(ctx, narrow, a.view()), std::logic_error);
  }
}

TEST(Spmm, RefusesShapesThatDoNotFit) {
  Draw g;
  Ctx ctx(1);
  const TestCsr a = skewed_csr(g, 4, 5, 3);
  std::vector<float> x(5 * 8), y(4 * 8);
  EXPECT_THROW(cpu::spmm(ctx, mat(y, 4, 8), a.view(), cmat(x, 4, 8), false), std::logic_error);
  EXPECT_THROW(cpu::spmm(ctx, mat(y, 3, 8), a.view(), cmat(x, 5, 8), false), std::logic_error);
}

}  // namespace
}  // namespace ccdrec::test::spmm_test
