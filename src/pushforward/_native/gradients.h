// The gradients of a network's weights and biases, summed tile by tile.
#pragma once

#include "threads.h"
#include "tiles.h"

namespace {

// Those of one thread's rows. A row of a weight's gradient is padded to whole vectors, an odd number of them: rows a
// power of two apart would share a few lines of the cache.
template <class T> class Gradients {
  const Shape &shape;
  std::vector<size_t> starts;
  std::vector<Vector<T>> weights, biases, flipped;

  static int row_vectors(int units) { return (units + lanes<T> - 1) / lanes<T> | 1; }

 public:
  explicit Gradients(const Shape &shape) : shape(shape) {
    size_t size = 0, made = 0;
    int most = 0;
    for (int layer = 0; layer <= shape.hidden_layers; layer++) {
      starts.push_back(size);
      size += size_t(shape.made(layer)) * row_vectors(shape.seen(layer));
      made += size_t(shape.made(layer));
      most = std::max(most, row_vectors(shape.seen(layer)));
    }
    weights.resize(size), biases.resize(made), flipped.resize(size_t(tile_rows<T>) * most);
  }

  // Adds what a tile's rows do: `by`, the cotangents of what the layer makes, times what it sees, `seen`, whose units lie
  // `stride` apart. Units seen from `sees(u)` on do not count for those made from u on.
  template <class Sees>
  void add(int layer, int rows, const Vector<T> *by, const T *seen, int64_t stride, const Sees &sees) {
    const int units = shape.seen(layer), made = shape.made(layer), step = row_vectors(units);
    for (int column = 0; column < units; column += lanes<T>)
      for (int row = 0; row < rows; row += lanes<T>) {
        Vector<T> square[lanes<T>];
        for (int j = 0; j < lanes<T>; j++)
          square[j] = column + j < units ? load(seen + (column + j) * stride + row) : Vector<T>{};
        transpose<T>(square);
        for (int j = 0; j < lanes<T>; j++) flipped[size_t((row + j) * step + column / lanes<T>)] = square[j];
      }
    for (int u = 0; u < made; u += most_units) {
      const int several = std::min(most_units, made - u), vectors = (sees(u + several - 1) + lanes<T> - 1) / lanes<T>;
      product(vectors, reinterpret_cast<const T *>(by + u * tile_vectors), tile_rows<T>, several, rows, flipped.data(),
              weights.data() + starts[size_t(layer)] + size_t(u) * step, step, step);
    }
    Vector<T> *sums = biases.data();
    for (int earlier = 0; earlier < layer; earlier++) sums += shape.made(earlier);
    for (int u = 0; u < made; u++)
      for (int v = 0; v * lanes<T> < rows; v++) sums[u] += by[u * tile_vectors + v];
  }

  // Adds them to, or writes them as, gradients of the weights' own shapes.
  template <class Sees> void give(bool first, T *const *by_weights, T *const *by_biases, const Sees &sees) const {
    const Vector<T> *sums = biases.data();
    for (int layer = 0; layer <= shape.hidden_layers; layer++) {
      const int units = shape.seen(layer), step = row_vectors(units);
      for (int u = 0; u < shape.made(layer); u++, sums++) {
        const T *from = reinterpret_cast<const T *>(weights.data() + starts[size_t(layer)] + size_t(u) * step);
        T *to = by_weights[layer] + int64_t(u) * units, sum = 0;
        const int seen = sees(layer, u);
        for (int k = 0; k < seen; k++) to[k] = first ? from[k] : to[k] + from[k];
        if (first) std::fill(to + seen, to + units, T(0));
        for (int j = 0; j < lanes<T>; j++) sum += (*sums)[j];
        by_biases[layer][u] = first ? sum : by_biases[layer][u] + sum;
      }
    }
  }
};

// Shares tiles among threads, work(first, last, gradients), and sums the gradients, if they are asked for, in one order.
template <class T, class Sees, class Work>
void with_gradients(const Shape &shape, int64_t tiles, int64_t threads, T *const *by_weights, T *const *by_biases,
                    const Sees &sees, const Work &work) {
  const int64_t parts = parts_of(tiles, shape.grain(tile_rows<T>), threads);
  std::vector<Gradients<T>> gradients;
  for (int64_t part = 0; by_weights && part < parts; part++) gradients.emplace_back(shape);
  share(tiles, parts, [&](int64_t first, int64_t last, int64_t part) {
    work(first, last, by_weights ? &gradients[size_t(part)] : nullptr);
  });
  for (size_t part = 0; part < gradients.size(); part++) gradients[part].give(part == 0, by_weights, by_biases, sees);
}

}  // namespace
