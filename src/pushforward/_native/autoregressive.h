// A whole masked autoregressive layer, tile of rows by tile of rows: its network and its scalar map in one pass, in
// either direction, and the transposed pass of the gradient. Each hidden unit is computed once.
//
// Hidden units are sorted by the number of inputs that they see, so that what is known before input i is a prefix, and
// the products stop there: about half of those of a dense network. Within a tile the rows lie side by side, so that
// each unit is a few vectors.
#pragma once

#include "maps.h"
#include "threads.h"

struct pushforward_network {
  int32_t features, context, hidden_layers, activation, residual, parameters;
  const int32_t *order;   // the features in the order of their generation
  const int32_t *widths;  // of the hidden layers
  const int32_t *known;   // (hidden_layers, features): how many units see at most i inputs
};

namespace {

constexpr int tile_vectors = 4;
template <class T> constexpr int tile_rows = tile_vectors * lanes<T>;

// What a product keeps in registers at once: units times vectors.
#if defined(__AVX512F__)
constexpr int most_units = 6, vectors_at_once = 4;
#else
constexpr int most_units = 4, vectors_at_once = 2;
#endif

template <class T, int units>
INLINE void product_of(const T *weight, int row, int inputs, const Vector<T> *in, Vector<T> *out) {
  for (int start = 0; start < tile_vectors; start += vectors_at_once) {
    Vector<T> sum[units][vectors_at_once];
#pragma GCC unroll 8
    for (int m = 0; m < units; m++)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_at_once; v++) sum[m][v] = out[m * tile_vectors + start + v];
#pragma GCC unroll 2
    for (int k = 0; k < inputs; k++) {
      Vector<T> seen[vectors_at_once];
#pragma GCC unroll 4
      for (int v = 0; v < vectors_at_once; v++) seen[v] = in[k * tile_vectors + start + v];
#pragma GCC unroll 8
      for (int m = 0; m < units; m++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors_at_once; v++) sum[m][v] += weight[m * row + k] * seen[v];
    }
#pragma GCC unroll 8
    for (int m = 0; m < units; m++)
#pragma GCC unroll 4
      for (int v = 0; v < vectors_at_once; v++) out[m * tile_vectors + start + v] = sum[m][v];
  }
}

// Adds weight (units, row) times in (inputs, tile) to out (units, tile).
template <class T> void product(const T *weight, int row, int units, int inputs, const Vector<T> *in, Vector<T> *out) {
  while (units > 0) {
    // In parts of nearly equal size: a single unit left over would be slow.
    const int parts = (units + most_units - 1) / most_units, part = (units + parts - 1) / parts;
    switch (part) {
      case 1: product_of<T, 1>(weight, row, inputs, in, out); break;
      case 2: product_of<T, 2>(weight, row, inputs, in, out); break;
      case 3: product_of<T, 3>(weight, row, inputs, in, out); break;
      case 4: product_of<T, 4>(weight, row, inputs, in, out); break;
#if defined(__AVX512F__)
      case 5: product_of<T, 5>(weight, row, inputs, in, out); break;
      default: product_of<T, 6>(weight, row, inputs, in, out); break;
#endif
    }
    weight += part * row, out += part * tile_vectors, units -= part;
  }
}

enum { relu, silu, tanh_ };

template <class T> INLINE Vector<T> activated(int activation, Vector<T> a) {
  switch (activation) {
    case relu: return maximum<T>(a, Vector<T>{});
    case silu: return a * sigmoid<T>(a);
    default: return hyperbolic_tangent<T>(a);
  }
}

// Whether the slope is a function of what comes out, which is kept in any case.
INLINE bool has_slope_of_output(int activation) { return activation != silu; }

// The slope, of what comes out if that is enough, or else of what goes in.
template <class T> INLINE Vector<T> slope_of_activation(int activation, Vector<T> a) {
  switch (activation) {
    case relu: return select(a > T(0), filled(T(1)), Vector<T>{});
    case silu: {
      Vector<T> s = sigmoid<T>(a);
      return s * (T(1) + a * (T(1) - s));
    }
    default: return T(1) - a * a;
  }
}

// Sizes that both passes need.
struct Shape : pushforward_network {
  explicit Shape(const pushforward_network &network) : pushforward_network(network) {}
  int seen(int layer) const { return layer ? widths[layer - 1] : context + features; }
  int first(int layer, int i) const { return i ? known[layer * features + i - 1] : 0; }
  int last(int layer, int i) const { return known[layer * features + i]; }
  int outputs() const { return features * parameters; }

  int64_t grain(int64_t rows) const {  // tiles that are worth a thread
    int64_t products = int64_t(seen(0)) * widths[0] + int64_t(widths[hidden_layers - 1]) * outputs();
    for (int layer = 1; layer < hidden_layers; layer++) products += int64_t(widths[layer - 1]) * widths[layer];
    return 1 + 4'000'000 / (products * rows);
  }
};

// Column of a row-major (n, columns) array from a row on. Beyond the last row, values are repeated, so that they are as
// sane as that one, and cotangents are zero.
enum class Beyond { repeated, zero };

template <class T> INLINE void read_column(const T *from, int columns, int64_t rows, Vector<T> *to, Beyond beyond) {
  T *each = reinterpret_cast<T *>(to);
  const int64_t known = std::min<int64_t>(rows, tile_rows<T>);
  for (int64_t r = 0; r < known; r++) each[r] = from[r * columns];
  for (int64_t r = known; r < tile_rows<T>; r++) each[r] = beyond == Beyond::zero ? T(0) : each[known - 1];
}

template <class T> INLINE void write_column(const Vector<T> *from, int columns, int64_t rows, T *to) {
  for (int r = 0; r < std::min<int64_t>(rows, tile_rows<T>); r++) to[int64_t(r) * columns] = reinterpret_cast<const T *>(from)[r];
}

// Between a tile and a (units, stride) array, of which it is some columns.
template <class T> void write_tile(const Vector<T> *tile, int units, T *to, int64_t stride) {
  for (int u = 0; u < units; u++) std::memcpy(to + u * stride, tile + u * tile_vectors, sizeof(Vector<T>) * tile_vectors);
}

template <class T> void read_tile(const T *from, int64_t stride, int units, Vector<T> *tile) {
  for (int u = 0; u < units; u++) std::memcpy(tile + u * tile_vectors, from + u * stride, sizeof(Vector<T>) * tile_vectors);
}

// Several blocks of a tile's units in one piece of memory.
template <class T> struct Scratch {
  std::vector<Vector<T>> memory;
  std::vector<size_t> starts;
  explicit Scratch(const std::vector<int> &units) {
    size_t size = 0;
    for (int u : units) starts.push_back(size), size += size_t(u) * tile_vectors;
    memory.resize(size);
  }
  Vector<T> *operator[](size_t block) { return memory.data() + starts[block]; }
};

// What a pass computes in a tile, block by block: what each layer sees (0..L), h, the log-slopes, and each hidden layer
// before its nonlinearity.
inline std::vector<int> blocks(const Shape &shape) {
  std::vector<int> units;
  for (int layer = 0; layer <= shape.hidden_layers; layer++) units.push_back(shape.seen(layer));
  units.push_back(shape.outputs());
  units.push_back(shape.features);
  for (int layer = 0; layer < shape.hidden_layers; layer++) units.push_back(shape.widths[layer]);
  return units;
}

// How many units of these the gradient needs; they follow each other in one array, (units, stride).
inline int64_t saved_units(const Shape &shape) {
  int64_t units = 0;
  for (int block : blocks(shape)) units += block;
  if (has_slope_of_output(shape.activation))
    for (int layer = 0; layer < shape.hidden_layers; layer++) units -= shape.widths[layer];
  return units;
}

// Rows in whole tiles, and a little more: columns that lie a power of two apart would share a few lines of the cache.
template <class T> int64_t saved_stride(int64_t n) {
  return (n + tile_rows<T> - 1) / tile_rows<T> * tile_rows<T> + 64 / int64_t(sizeof(T));
}

// out and log_det of a layer. If `sequential`, what each unit sees are the values that come out, else those given.
template <class T, class Map>
void autoregressive(const Map &map, const pushforward_network &network, bool sequential, const T *const *weights,
                    const T *const *biases, int64_t n, const T *value, const T *context, T *out, T *log_det, T *saved,
                    int64_t threads) {
  const Shape shape(network);
  const int D = shape.features, P = shape.parameters, L = shape.hidden_layers;
  const int64_t tiles = (n + tile_rows<T> - 1) / tile_rows<T>, stride = saved_stride<T>(n);
  const std::vector<int> units = blocks(shape);
  share(tiles, shape.grain(tile_rows<T>), threads, [&](int64_t first, int64_t last) {
    Scratch<T> tile(units);
    Vector<T> *h = tile[L + 1], *log_slopes = tile[L + 2];
    for (int64_t row = first * tile_rows<T>; row < last * tile_rows<T>; row += tile_rows<T>) {
      for (int c = 0; c < shape.context; c++)
        read_column(context + row * shape.context + c, shape.context, n - row, tile[0] + c * tile_vectors, Beyond::repeated);
      Vector<T> total[tile_vectors] = {};
      for (int i = 0; i < D; i++) {
        for (int layer = 0; layer < L; layer++) {
          const int a = shape.first(layer, i), e = shape.last(layer, i), inputs = shape.seen(layer);
          Vector<T> *before = tile[L + 3 + layer], *after = tile[layer + 1];
          for (int u = a; u < e; u++)
            for (int v = 0; v < tile_vectors; v++) {
              before[u * tile_vectors + v] = filled(biases[layer][u]);
              if (layer && shape.residual) before[u * tile_vectors + v] += tile[L + 2 + layer][u * tile_vectors + v];
            }
          product(weights[layer] + int64_t(a) * inputs, inputs, e - a, layer ? shape.last(layer - 1, i) : shape.context + i,
                  tile[layer], before + a * tile_vectors);
          for (int j = a * tile_vectors; j < e * tile_vectors; j++) after[j] = activated<T>(shape.activation, before[j]);
        }
        Vector<T> *own = h + i * P * tile_vectors;
        for (int p = 0; p < P; p++)
          for (int v = 0; v < tile_vectors; v++) own[p * tile_vectors + v] = filled(biases[L][i * P + p]);
        const int inputs = shape.seen(L);
        product(weights[L] + int64_t(i) * P * inputs, inputs, P, shape.last(L - 1, i), tile[L], own);
        Vector<T> given[tile_vectors], found[tile_vectors];
        const int column = shape.order[i];
        read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
        for (int v = 0; v < tile_vectors; v++) {
          map.apply(given[v], own + v, tile_vectors, found[v], log_slopes[i * tile_vectors + v]);
          total[v] += log_slopes[i * tile_vectors + v];
          tile[0][(shape.context + i) * tile_vectors + v] = sequential ? found[v] : given[v];
        }
        write_column(found, D, n - row, out + row * D + column);
      }
      write_column(total, 1, n - row, log_det + row);
      if (saved) write_tile(tile[0], int(saved_units(shape)), saved + row, stride);
    }
  });
}

// The transposed pass: cotangents of the value, `by_units` of each hidden layer before its nonlinearity, and of h. The
// weights are transposed, (inputs, outputs).
template <class T, class Map>
void autoregressive_pull(const Map &map, const pushforward_network &network, bool sequential, const T *const *weights,
                         int64_t n, const T *value, const T *out, const T *saved, const T *by_out, const T *by_log_det,
                         T *by_value, T *by_units, int64_t threads) {
  const Shape shape(network);
  const int D = shape.features, P = shape.parameters, L = shape.hidden_layers;
  const int64_t tiles = (n + tile_rows<T> - 1) / tile_rows<T>, stride = saved_stride<T>(n);
  std::vector<int> units(shape.widths, shape.widths + L);
  units.push_back(shape.outputs());
  int64_t seen_units = 0, hidden_units = 0;
  for (int layer = 0; layer < L; layer++) hidden_units += shape.widths[layer];
  for (int layer = 0; layer <= L; layer++) seen_units += shape.seen(layer);
  // Where the hidden layers are of which the slopes are taken.
  int64_t passed_units = shape.seen(0);
  if (!has_slope_of_output(shape.activation)) passed_units = seen_units + shape.outputs() + D;
  share(tiles, shape.grain(tile_rows<T>), threads, [&](int64_t first, int64_t last) {
    Scratch<T> tile(units);
    Vector<T> *by_h = tile[L];
    std::vector<Vector<T>> own(size_t(P) * tile_vectors);
    for (int64_t row = first * tile_rows<T>; row < last * tile_rows<T>; row += tile_rows<T>) {
      const T *h = saved + seen_units * stride + row, *log_slopes = h + int64_t(shape.outputs()) * stride;
      Vector<T> by_log[tile_vectors];
      read_column(by_log_det + row, 1, n - row, by_log, Beyond::zero);
      for (int i = D - 1; i >= 0; i--) {
        const int column = shape.order[i], later = shape.last(0, i);
        Vector<T> by_seen[tile_vectors] = {};
        product(weights[0] + int64_t(shape.context + i) * shape.widths[0] + later, shape.widths[0], 1, shape.widths[0] - later,
                tile[0] + later * tile_vectors, by_seen);
        Vector<T> given[tile_vectors], found[tile_vectors], slopes[tile_vectors], by_found[tile_vectors], by_given[tile_vectors];
        // What the network saw lies side by side already.
        read_tile(saved + (shape.context + i) * stride + row, stride, 1, sequential ? found : given);
        read_column((sequential ? value : out) + row * D + column, D, n - row, sequential ? given : found, Beyond::repeated);
        read_column(by_out + row * D + column, D, n - row, by_found, Beyond::zero);
        read_tile(log_slopes + i * stride, stride, 1, slopes);
        read_tile(h + int64_t(i) * P * stride, stride, P, own.data());
        for (int v = 0; v < tile_vectors; v++) {
          if (sequential) by_found[v] += by_seen[v];
          map.pull(given[v], own.data() + v, tile_vectors, found[v], slopes[v], by_found[v], by_log[v], by_given[v],
                   by_h + i * P * tile_vectors + v);
          if (!sequential) by_given[v] += by_seen[v];
        }
        write_column(by_given, D, n - row, by_value + row * D + column);
        const T *passed = saved + (passed_units + hidden_units) * stride + row;
        for (int layer = L - 1; layer >= 0; layer--) {
          passed -= shape.widths[layer] * stride;
          const int a = shape.first(layer, i), e = shape.last(layer, i);
          const int start = layer == L - 1 ? i * P : shape.first(layer + 1, i), outputs = units[layer + 1];
          Vector<T> *by_layer = tile[layer];
          std::fill(by_layer + a * tile_vectors, by_layer + e * tile_vectors, Vector<T>{});
          product(weights[layer + 1] + int64_t(a) * outputs + start, outputs, e - a, outputs - start,
                  tile[layer + 1] + start * tile_vectors, by_layer + a * tile_vectors);
          for (int u = a; u < e; u++) {
            Vector<T> unit[tile_vectors];
            read_tile(passed + u * stride, stride, 1, unit);
            for (int v = 0; v < tile_vectors; v++) {
              Vector<T> &by_unit = by_layer[u * tile_vectors + v];
              by_unit *= slope_of_activation<T>(shape.activation, unit[v]);
              if (shape.residual && layer < L - 1) by_unit += tile[layer + 1][u * tile_vectors + v];
            }
          }
        }
      }
      write_tile(tile[0], int(tile.memory.size()) / tile_vectors, by_units + row, stride);
    }
  });
}

}  // namespace
