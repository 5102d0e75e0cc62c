// Convolutions with max(x, 0) after each, their gradients, and a product of few rows, in float32.
//
// All of it is one product of matrices, in tiles that stay in registers. What one output reads of a
// row of inputs lies side by side, so a convolution's operands are read where they are. Vectors are
// the compiler's, as wide as those of the processor that it compiles for.

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace {
namespace ffi = xla::ffi;
using Bytes = ffi::Buffer<ffi::U8>;
using Floats = ffi::Buffer<ffi::F32>;
using Strides = ffi::Span<const int64_t>;

#if defined(__AVX512F__)  // 32 registers of 16 numbers
constexpr int kLanes = 16, kPanel = 32, kMaxRows = 24, kMaxRowsOfPanel = 12;
#elif defined(__AVX2__) && defined(__FMA__)  // 16 of 8
constexpr int kLanes = 8, kPanel = 16, kMaxRows = 6, kMaxRowsOfPanel = 6;
#elif defined(__ARM_NEON)  // 32 of 4
constexpr int kLanes = 4, kPanel = 16, kMaxRows = 6, kMaxRowsOfPanel = 6;
#else
#error "XLA is faster with the vectors of this processor"
#endif
typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
void Store(Vector vector, float* to) { *reinterpret_cast<Vector*>(to) = vector; }

// c[m, :] = init[m, :] + sum over q and p of a[m * A + p * a_p + q * a_q] * b[p, q, :], then
// max(c, 0) with `is_relu`, or 0 where `mask` is not positive. A is known when this is compiled.
struct Product {
  const float *a, *b, *init = nullptr, *mask = nullptr;
  float* c;
  int num_p, num_q = 1;
  long a_p = 1, a_q = 0, b_p, b_q = 0, init_m = 0, c_m;  // `mask` lies as c does
  bool is_relu = false;
};

template <int A, int kColumns, int M>
__attribute__((noinline)) void Tile(const Product& x) {
  constexpr int V = kColumns / kLanes;
  Vector sums[M][V], row[V];
#pragma GCC unroll 64
  for (int i = 0; i < M * V; i++)
    sums[i / V][i % V] = x.init ? Load(x.init + i / V * x.init_m + i % V * kLanes) : Vector{};
  const long a_p = x.a_p, b_p = x.b_p;
  for (int q = 0; q < x.num_q; q++) {
    const float *a = x.a + q * x.a_q, *b = x.b + q * x.b_q;
    for (int p = 0; p < x.num_p; p++, a += a_p, b += b_p) {
#pragma GCC unroll 64
      for (int v = 0; v < V; v++) row[v] = Load(b + v * kLanes);
#pragma GCC unroll 64
      for (int i = 0; i < M * V; i++) sums[i / V][i % V] += a[i / V * A] * row[i % V];
    }
  }
#pragma GCC unroll 64
  for (int i = 0; i < M * V; i++) {
    const long at = i / V * x.c_m + i % V * kLanes;
    Vector sum = sums[i / V][i % V];
    if (x.is_relu) sum = sum > Vector{} ? sum : Vector{};
    if (x.mask) sum = Load(x.mask + at) > Vector{} ? sum : Vector{};
    Store(sum, x.c + at);
  }
}

template <int A, int kColumns, int... M>
void MultiplyColumns(int num_rows, int column, Product x, std::integer_sequence<int, M...>) {
  static constexpr void (*tiles[])(const Product&) = {Tile<A, kColumns, M + 1>...};
  const int num_tiles = (num_rows - 1) / sizeof...(M) + 1;
  x.b += column, x.c += column, x.init += x.init ? column : 0, x.mask += x.mask ? column : 0;
  for (int i = 0; i < num_tiles; i++) {
    const int count = num_rows * (i + 1) / num_tiles - num_rows * i / num_tiles;
    tiles[count - 1](x);
    x.a += count * A, x.c += count * x.c_m, x.init += count * x.init_m;
    x.mask += x.mask ? count * x.c_m : 0;
  }
}

// The product for any number of rows and a multiple of 16 columns.
template <int A>
void Multiply(int num_rows, int num_columns, const Product& x) {
  int j = 0;
  for (; j + kPanel <= num_columns; j += kPanel)
    MultiplyColumns<A, kPanel>(num_rows, j, x, std::make_integer_sequence<int, kMaxRowsOfPanel>());
  for (; j < num_columns; j += 16)
    MultiplyColumns<A, 16>(num_rows, j, x, std::make_integer_sequence<int, kMaxRows>());
}

void MultiplyBy(int a, int num_rows, int num_columns, const Product& x) {
  a == 32 ? Multiply<32>(num_rows, num_columns, x) : Multiply<64>(num_rows, num_columns, x);
}

// Memory that a thread keeps from call to call: fresh memory costs page faults.
float* Scratch(int slot, size_t size) {
  struct alignas(64) Line { float numbers[16]; };
  thread_local std::map<int, std::vector<Line>> memory;
  auto& own = memory[slot];
  if (16 * own.size() < size) own.resize(size / 16 + 1);
  return own[0].numbers;
}

void Centre(const uint8_t* __restrict__ bytes, const float* __restrict__ mean, long size,
            float* __restrict__ centred) {
  for (long i = 0; i < size; i++) centred[i] = static_cast<int>(bytes[i]) - mean[i];
}

void Add(const float* values, long size, float* sums) {
  for (long i = 0; i < size; i += kLanes) Store(Load(sums + i) + Load(values + i), sums + i);
}

// A convolution [height, width, in] -> [rows, columns, out].
struct Layer {
  int height, width, in, size, stride, out;
  const float *kernel, *bias;
  int taps() const { return size / stride; }
  int rows() const { return (height - size) / stride + 1; }
  int columns() const { return (width - size) / stride + 1; }
  int run() const { return size * in; }  // inputs side by side that one output reads
  long input_row() const { return width * in; }
  long output_row() const { return columns() * out; }
  long num_inputs() const { return height * input_row(); }
  long num_outputs() const { return rows() * output_row(); }
};

// From the arguments: bytes, their mean, then a kernel HWIO and a bias of each. The bytes are those
// of frames as blocks of 4 x 4, for which the first kernel, [8, 8, ...], is of size 2.
std::vector<Layer> ReadLayers(ffi::RemainingArgs args, Strides strides) {
  const auto shape = args.get<Bytes>(0)->dimensions();
  int height = shape[1], width = shape[2], in = shape[3];
  std::vector<Layer> layers;
  for (size_t i = 0; i < strides.size(); i++) {
    const auto kernel = *args.get<Floats>(2 * i + 2), bias = *args.get<Floats>(2 * i + 3);
    const int size = i ? kernel.dimensions()[0] : 2, out = kernel.dimensions()[3];
    const int stride = i ? strides[i] : 1;
    const float* weights = kernel.typed_data();
    layers.push_back({height, width, in, size, stride, out, weights, bias.typed_data()});
    height = layers[i].rows(), width = layers[i].columns(), in = out;
  }
  return layers;
}

// [8, 8, C, out] for frames -> [2, 2, C * 4 * 4, out] for blocks
void ArrangeKernel(const Layer& s, float* to) {
  for (int i = 0, channels = s.in / 16; i < 4 * s.in; i++) {
    const int x = i % 4, y = i / 4 % 4, channel = i / 16 % channels, tap = i / s.in;
    const int from = ((tap / 2 * 4 + y) * 8 + tap % 2 * 4 + x) * channels + channel;
    std::copy_n(s.kernel + from * s.out, s.out, to + i * s.out);
  }
}

// One row of outputs; `step` leads from a row of inputs to the next.
void ConvolveRow(const Layer& s, const float* inputs, long step, float* outputs) {
  MultiplyBy(s.stride * s.in, s.columns(), s.out,
             {.a = inputs, .b = s.kernel, .init = s.bias, .c = outputs, .num_p = s.run(),
              .num_q = s.size, .a_q = step, .b_p = s.out, .b_q = s.run() * s.out, .c_m = s.out,
              .is_relu = true});
}

// With a kernel of size 2: that many rows of the bytes are floats at a time.
void ConvolveBytes(const Layer& s, const uint8_t* bytes, const float* mean, float* outputs) {
  const long row = s.input_row();
  float* two_rows = Scratch(0, 2 * row);
  Centre(bytes, mean, row, two_rows);
  for (int y = 0; y < s.rows(); y++) {
    Centre(bytes + (y + 1) * row, mean + (y + 1) * row, row, two_rows + (y + 1) % 2 * row);
    ConvolveRow(s, two_rows + y % 2 * row, y % 2 ? -row : row, outputs + y * s.output_row());
  }
}

ffi::Error Convolve(ffi::RemainingArgs args, ffi::RemainingRets rets, Strides strides) {
  std::vector<Layer> layers = ReadLayers(args, strides);
  const auto bytes = *args.get<Bytes>(0);
  const float* mean = args.get<Floats>(1)->typed_data();
  float* kernel = Scratch(1, layers[0].size * layers[0].run() * layers[0].out);
  ArrangeKernel(layers[0], kernel);
  layers[0].kernel = kernel;
  for (long i = 0; i < bytes.dimensions()[0]; i++) {
    const float* inputs = nullptr;
    for (size_t j = 0; j < layers.size(); j++) {
      const Layer& s = layers[j];
      float* outputs = (*rets.get<Floats>(j))->typed_data() + i * s.num_outputs();
      if (j == 0) ConvolveBytes(s, bytes.typed_data() + i * s.num_inputs(), mean, outputs);
      for (long y = 0, row = s.input_row(); j && y < s.rows(); y++)
        ConvolveRow(s, inputs + y * s.stride * row, row, outputs + y * s.output_row());
      inputs = outputs;
    }
  }
  return ffi::Error::Success();
}

// Adds what `num_rows` rows of inputs and of output gradients give to the kernel's gradient.
void AddKernelGradient(const Layer& s, const float* inputs, const float* grads, int num_rows,
                       float* sum) {
  for (int y = 0; y < s.size; y++, inputs += s.input_row(), sum += s.run() * s.out)
    Multiply<1>(s.run(), s.out,
                {.a = inputs, .b = grads, .init = sum, .c = sum, .num_p = s.columns(),
                 .num_q = num_rows, .a_p = s.stride * s.in, .a_q = s.stride * s.input_row(),
                 .b_p = s.out, .b_q = s.output_row(), .init_m = s.out, .c_m = s.out});
}

// Gradients of the inputs, 0 where these are not positive. `reversed` is the kernel as [dy, tap_y,
// tap_x, out, dx, in], taps from last to first; `padded` has room for the others between zeros.
void DifferentiateInputs(const Layer& s, const float* reversed, const float* inputs,
                         const float* grads, float* padded, float* input_grads) {
  const int taps = s.taps(), depth = s.stride * s.in, num_p = taps * s.out;
  const long pad = (taps - 1) * s.out, row = s.output_row() + 2 * pad;
  for (int y = 0; y < s.rows(); y++)
    std::copy_n(grads + y * s.output_row(), s.output_row(), padded + y * row + pad);
  for (int block = 0; block < s.rows() + taps - 1; block++) {
    const int begin = std::max(0, taps - 1 - block);
    const int end = std::min(taps, s.rows() + taps - 1 - block);
    for (int dy = 0; dy < s.stride; dy++) {
      const long at = (block * s.stride + dy) * s.input_row();
      MultiplyBy(s.out, s.columns() + taps - 1, depth,
                 {.a = padded + (block - taps + 1 + begin) * row,
                  .b = reversed + (dy * taps + begin) * num_p * depth, .mask = inputs + at,
                  .c = input_grads + at, .num_p = num_p, .num_q = end - begin, .a_q = row,
                  .b_p = depth, .b_q = num_p * depth, .c_m = depth});
    }
  }
}

// Further arguments: the outputs of all layers, the cotangents of the last, and the reversed
// kernels of all but the first, whose gradient is that of the kernel for blocks.
ffi::Error Differentiate(ffi::RemainingArgs args, ffi::RemainingRets rets, Strides strides) {
  const std::vector<Layer> layers = ReadLayers(args, strides);
  const auto bytes = *args.get<Bytes>(0);
  const float* mean = args.get<Floats>(1)->typed_data();
  const int num_layers = layers.size(), last = num_layers - 1;
  std::vector<const float*> further;
  std::vector<float*> sums, grads, padded;
  for (size_t k = 2 * num_layers + 2; k < args.size(); k++)
    further.push_back(args.get<Floats>(k)->typed_data());
  for (int k = 0; k < 2 * num_layers; k++) {
    auto sum = *rets.get<Floats>(k);
    std::fill_n(sum->typed_data(), sum->element_count(), 0.f);
    sums.push_back(sum->typed_data());
  }
  for (int j = 0; j < num_layers; j++) {
    const Layer& s = layers[j];
    const long size = s.rows() * (s.output_row() + 2 * (s.taps() - 1) * s.out);
    grads.push_back(Scratch(2 * j + 1, s.num_outputs()));
    padded.push_back(Scratch(2 * j + 2, size));
    std::fill_n(padded[j], size, 0.f);
  }
  constexpr int kStrip = 5;  // rows of bytes that are floats at a time
  const Layer& first = layers[0];
  const long row = first.input_row();
  float* floats = Scratch(0, (kStrip + first.size - 1) * row);
  for (long i = 0; i < bytes.dimensions()[0]; i++) {
    for (long size = layers[last].num_outputs(), k = 0; k < size; k++)
      grads[last][k] = further[last][i * size + k] > 0 ? further[num_layers][i * size + k] : 0;
    for (int j = last; j >= 0; j--) {
      const Layer& s = layers[j];
      for (long k = 0; k < s.num_outputs(); k += s.out) Add(grads[j] + k, s.out, sums[2 * j + 1]);
      if (j == 0) break;
      const float* inputs = further[j - 1] + i * s.num_inputs();
      AddKernelGradient(s, inputs, grads[j], s.rows(), sums[2 * j]);
      DifferentiateInputs(s, further[num_layers + j], inputs, grads[j], padded[j], grads[j - 1]);
    }
    for (int y = 0; y < first.rows(); y += kStrip) {
      const int count = std::min(kStrip, first.rows() - y);
      const uint8_t* from = bytes.typed_data() + i * first.num_inputs() + y * row;
      Centre(from, mean + y * row, (count + first.size - 1) * row, floats);
      AddKernelGradient(first, floats, grads[0] + y * first.output_row(), count, sums[0]);
    }
  }
  return ffi::Error::Success();
}

// [n, size] times [size, out], for small n: the weights are read once, for all rows.
ffi::Error MultiplyFew(Floats inputs, Floats weights, ffi::Result<Floats> result) {
  constexpr int kSpan = 96;
  const int n = inputs.dimensions()[0], size = inputs.dimensions()[1];
  const int out = weights.dimensions()[1];
  float *columns = Scratch(0, kSpan * n), *outputs = result->typed_data();
  for (int k = 0; k < size; k += kSpan) {
    const int span = std::min(kSpan, size - k);
    for (int j = 0; j < span; j++)
      for (int i = 0; i < n; i++) columns[j * n + i] = inputs.typed_data()[i * size + k + j];
    Multiply<1>(n, out, {.a = columns, .b = weights.typed_data() + static_cast<long>(k) * out,
                         .init = k ? outputs : nullptr, .c = outputs, .num_p = span, .a_p = n,
                         .b_p = out, .init_m = k ? out : 0, .c_m = out});
  }
  return ffi::Error::Success();
}

auto Bind() { return ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<Strides>("strides"); }

}  // namespace
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolve, Convolve, Bind());
XLA_FFI_DEFINE_HANDLER_SYMBOL(differentiate, Differentiate, Bind());
XLA_FFI_DEFINE_HANDLER_SYMBOL(multiply, MultiplyFew,
                              ffi::Ffi::Bind().Arg<Floats>().Arg<Floats>().Ret<Floats>());
