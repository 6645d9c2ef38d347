// Tiles of rows and what is computed in them: the network of a layer, its products and its nonlinearity.
//
// Within a tile the rows lie side by side, so that each unit of the network is a few vectors, and all that is computed
// of a tile stays in the cache.
#pragma once

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "maps.h"

struct pushforward_network {
  int32_t columns;  // of the events
  int32_t moved;    // how many of them go through the scalar map
  int32_t inputs;   // what the network sees
  int32_t context;  // how many of these are the context
  int32_t hidden_layers, activation, residual;
  int32_t parameters;      // how many numbers the scalar map takes for each value
  const int32_t *moved_at;  // which columns are moved, in the order of their generation
  const int32_t *passed_at; // which columns of a coupling pass, and are seen before the context
  const int32_t *widths;    // of the hidden layers
  const int32_t *known;     // of a masked network, (hidden_layers, moved): how many units see at most i columns
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

// With `half`, half a vector more after the whole ones, the other half of which becomes zero. That is worth it for vectors
// of 512 bits: processors that work on them in two turns take one for a half.
template <class T, bool transposed, int units, int vectors, bool half = false>
INLINE void product_of(const T *weight, int row, int inputs, const Vector<T> *in, int in_step, Vector<T> *out, int out_step,
                       bool add) {
  Vector<T> sum[units][vectors];
  HalfVector<T> last[units];
#pragma GCC unroll 8
  for (int m = 0; m < units; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[m][v] = add ? out[m * out_step + v] : Vector<T>{};
    if (half) last[m] = add ? first_half<T>(out[m * out_step + vectors]) : HalfVector<T>{};
  }
#pragma GCC unroll 2
  for (int k = 0; k < inputs; k++, in += in_step) {
    Vector<T> seen[vectors];
    HalfVector<T> last_seen;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) seen[v] = in[v];
    if (half) last_seen = first_half<T>(in[vectors]);
#pragma GCC unroll 8
    for (int m = 0; m < units; m++) {
      const Vector<T> factor = filled(transposed ? weight[int64_t(k) * row + m] : weight[m * row + k]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sum[m][v] += factor * seen[v];
      if (half) last[m] += first_half<T>(factor) * last_seen;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < units; m++) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) out[m * out_step + v] = sum[m][v];
    if (half) out[m * out_step + vectors] = with_zeros<T>(last[m]);
  }
}

template <class T, bool transposed, int units>
void product_of(int halves, const T *weight, int row, int inputs, const Vector<T> *in, int in_step, Vector<T> *out, int out_step,
                bool add) {
  for (; halves > 0; halves -= 2 * vectors_at_once, in += vectors_at_once, out += vectors_at_once)
    switch (std::min(halves, 2 * vectors_at_once)) {
      case 1:  // takes as long as two
      case 2: product_of<T, transposed, units, 1>(weight, row, inputs, in, in_step, out, out_step, add); break;
#if defined(__AVX512F__)
      case 3: product_of<T, transposed, units, 1, true>(weight, row, inputs, in, in_step, out, out_step, add); break;
      case 5: product_of<T, transposed, units, 2, true>(weight, row, inputs, in, in_step, out, out_step, add); break;
      case 6: product_of<T, transposed, units, 3>(weight, row, inputs, in, in_step, out, out_step, add); break;
      case 7: product_of<T, transposed, units, 3, true>(weight, row, inputs, in, in_step, out, out_step, add); break;
      case 8: product_of<T, transposed, units, 4>(weight, row, inputs, in, in_step, out, out_step, add); break;
#endif
      default: product_of<T, transposed, units, 2>(weight, row, inputs, in, in_step, out, out_step, add);
    }
}

// Adds weight times in, (inputs, halves of vectors) whose rows lie `in_step` vectors apart, to out, (units, halves), or, if
// not `add`, puts it there. The weight has rows that lie `row` apart: one for each unit, or, if it is transposed, one for
// each input.
template <class T, bool transposed = false>
void product(int halves, const T *weight, int row, int units, int inputs, const Vector<T> *in, Vector<T> *out,
             bool add = true, int in_step = tile_vectors, int out_step = tile_vectors) {
  while (units > 0) {
    // In parts of nearly equal size: a single unit left over would be slow.
    const int parts = (units + most_units - 1) / most_units, part = (units + parts - 1) / parts;
    switch (part) {
      case 1: product_of<T, transposed, 1>(halves, weight, row, inputs, in, in_step, out, out_step, add); break;
      case 2: product_of<T, transposed, 2>(halves, weight, row, inputs, in, in_step, out, out_step, add); break;
      case 3: product_of<T, transposed, 3>(halves, weight, row, inputs, in, in_step, out, out_step, add); break;
#if defined(__AVX512F__)
      case 5: product_of<T, transposed, 5>(halves, weight, row, inputs, in, in_step, out, out_step, add); break;
      case 6: product_of<T, transposed, 6>(halves, weight, row, inputs, in, in_step, out, out_step, add); break;
#endif
      default: product_of<T, transposed, 4>(halves, weight, row, inputs, in, in_step, out, out_step, add);
    }
    weight += transposed ? part : part * row, out += part * out_step, units -= part;
  }
}

// Parameters are of each layer the weight and the bias.
template <class T> INLINE const T *weight_of(const T *const *parameters, int layer) { return parameters[2 * layer]; }
template <class T> INLINE const T *bias_of(const T *const *parameters, int layer) { return parameters[2 * layer + 1]; }

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

// What both passes of a layer need to know of its sizes.
struct Shape : pushforward_network {
  explicit Shape(const pushforward_network &network) : pushforward_network(network) {}
  int seen(int layer) const { return layer ? widths[layer - 1] : inputs; }
  int made(int layer) const { return layer < hidden_layers ? widths[layer] : moved * parameters; }
  bool keeps_before() const { return !has_slope_of_output(activation); }

  // What a pass computes in a tile, block by block: what each layer sees (0..L), h, the log-slopes and the values of
  // the scalar map, and each hidden layer before its nonlinearity.
  std::vector<int> blocks() const {
    std::vector<int> units;
    for (int layer = 0; layer <= hidden_layers; layer++) units.push_back(seen(layer));
    units.insert(units.end(), {made(hidden_layers), moved, moved});
    for (int layer = 0; layer < hidden_layers; layer++) units.push_back(widths[layer]);
    return units;
  }
  int h_block() const { return hidden_layers + 1; }
  int log_slopes_block() const { return hidden_layers + 2; }
  int found_block() const { return hidden_layers + 3; }
  int before_block(int layer) const { return hidden_layers + 4 + layer; }
  // Where the slope of a hidden layer's nonlinearity is to be taken.
  int slope_block(int layer) const { return keeps_before() ? before_block(layer) : layer + 1; }

  // How many blocks, from the first one on, the gradient needs.
  int kept_blocks() const { return before_block(keeps_before() ? hidden_layers : 0); }
  int64_t kept_units() const {
    const std::vector<int> units = blocks();
    return std::accumulate(units.begin(), units.begin() + kept_blocks(), int64_t(0));
  }

  // Tiles that are worth a thread.
  int64_t grain(int64_t rows) const {
    int64_t products = 0;
    for (int layer = 0; layer <= hidden_layers; layer++) products += int64_t(seen(layer)) * made(layer);
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

// Of n rows.
template <class T> int64_t whole_tiles(int64_t n) { return (n + tile_rows<T> - 1) / tile_rows<T>; }

// How many vectors of a tile hold rows, if so many are left, and how many halves of vectors.
template <class T> INLINE int vectors_in_use(int64_t rows) {
  return int(std::min<int64_t>(tile_vectors, (rows + lanes<T> - 1) / lanes<T>));
}
template <class T> INLINE int halves_in_use(int64_t rows) {
  constexpr int half = lanes<T> / 2;
  return int(std::min<int64_t>(2 * tile_vectors, (rows + half - 1) / half));
}

// Blocks of a tile's units, one after the other. The first few may lie in memory that is kept, (tiles, kept units,
// tile_rows), as aligned as a vector; the others are of any content.
template <class T> class Tile {
  std::vector<int64_t> starts{0};
  size_t kept_blocks;
  T *kept;
  std::unique_ptr<Vector<T>[]> memory;
  Vector<T> *first_kept = nullptr;

 public:
  explicit Tile(const std::vector<int> &units, int kept_blocks = 0, T *kept = nullptr)
      : kept_blocks(kept ? size_t(kept_blocks) : 0), kept(kept) {
    for (int u : units) starts.push_back(starts.back() + u * tile_vectors);
    memory.reset(new Vector<T>[size_t(starts.back() - starts[this->kept_blocks])]);
  }
  // Which of the tiles it is.
  void place(int64_t tile) { first_kept = reinterpret_cast<Vector<T> *>(kept) + tile * starts[kept_blocks]; }
  Vector<T> *operator[](size_t block) const {
    return block < kept_blocks ? first_kept + starts[block] : memory.get() + (starts[block] - starts[kept_blocks]);
  }
};

// What one tile starts with: each unit's bias.
template <class T> INLINE void fill_with(const T *biases, int units, Vector<T> *tile) {
  for (int u = 0; u < units; u++)
    for (int v = 0; v < tile_vectors; v++) tile[u * tile_vectors + v] = filled(biases[u]);
}

// From the cotangents of what comes out of a nonlinearity to those of what goes in; `slopes` is where its slopes are to be
// taken.
template <class T> INLINE void pull_activation(const Shape &shape, int vectors, int units, const Vector<T> *slopes, Vector<T> *by) {
  for (int j = 0; j < units * tile_vectors; j += tile_vectors)
    for (int v = 0; v < vectors; v++) by[j + v] *= slope_of_activation<T>(shape.activation, slopes[j + v]);
}

}  // namespace
