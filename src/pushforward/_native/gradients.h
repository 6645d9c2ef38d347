// The gradients of a network's weights and biases, summed tile by tile.
#pragma once

#include "threads.h"
#include "tiles.h"

namespace {

// Those of one part of the rows. They are summed in the answer itself, if it has room for whole vectors and no other part
// adds to it, and else in memory of their own.
template <class T> class Gradients {
  struct Layer {
    T *answer, *by_bias;
    Vector<T> *weights;
    int step;  // vectors from one unit's weights to the next's
    bool is_answer;
  };
  const Shape &shape;
  bool is_first, is_empty = true;
  std::vector<Layer> layers;
  std::unique_ptr<Vector<T>[]> memory, flipped;  // of any content
  std::vector<Vector<T>> biases;

  static int whole_vectors(int units) { return (units + lanes<T> - 1) / lanes<T>; }
  // Rows a power of two apart would share a few lines of the cache.
  static int spread(int vectors) { return vectors | 1; }

 public:
  // `by_parameters` is of each layer that of the weight and that of the bias.
  Gradients(const Shape &shape, T *const *by_parameters, int64_t part, int64_t parts) : shape(shape), is_first(part == 0) {
    size_t size = 0, made = 0;
    int most = 0;
    std::vector<size_t> starts;
    for (int layer = 0; layer <= shape.hidden_layers; layer++) {
      const int vectors = whole_vectors(shape.seen(layer));
      T *answer = by_parameters[2 * layer];
      const bool is_answer = parts == 1 && shape.seen(layer) % lanes<T> == 0 &&
                             reinterpret_cast<uintptr_t>(answer) % sizeof(Vector<T>) == 0;
      layers.push_back({answer, by_parameters[2 * layer + 1], reinterpret_cast<Vector<T> *>(answer),
                        is_answer ? vectors : spread(vectors), is_answer});
      starts.push_back(size);
      if (!is_answer) size += size_t(shape.made(layer)) * size_t(layers.back().step);
      made += size_t(shape.made(layer));
      most = std::max(most, spread(vectors));
    }
    memory.reset(new Vector<T>[size]), flipped.reset(new Vector<T>[size_t(tile_rows<T> * most)]);
    biases.resize(made);
    for (size_t layer = 0; layer < layers.size(); layer++)
      if (!layers[layer].is_answer) layers[layer].weights = memory.get() + starts[layer];
  }

  // Adds what a tile's rows do: `by`, the cotangents of what the layer makes, times what it sees, `seen`. Of a few units
  // made from u on, those seen beyond `sees(layer, u)` of the last one do not count.
  template <class Sees>
  void add(int layer, int rows, const Vector<T> *by, const Vector<T> *seen, const Sees &sees) {
    const int units = shape.seen(layer), made = shape.made(layer), flipped_step = spread(whole_vectors(units));
    for (int column = 0; column < units; column += lanes<T>)
      for (int row = 0; row < rows; row += lanes<T>) {
        Vector<T> square[lanes<T>];
        for (int j = 0; j < lanes<T>; j++)
          square[j] = column + j < units ? seen[(column + j) * tile_vectors + row / lanes<T>] : Vector<T>{};
        transpose<T>(square);
        for (int j = 0; j < lanes<T>; j++) flipped[size_t((row + j) * flipped_step + column / lanes<T>)] = square[j];
      }
    const Layer &own = layers[size_t(layer)];
    for (int u = 0; u < made; u += most_units) {
      const int several = std::min(most_units, made - u);
      product(2 * whole_vectors(sees(layer, u + several - 1)), reinterpret_cast<const T *>(by + u * tile_vectors), tile_rows<T>,
              several, rows, flipped.get(), own.weights + size_t(u) * size_t(own.step), !is_empty, flipped_step, own.step);
    }
    Vector<T> *sums = biases.data();
    for (int earlier = 0; earlier < layer; earlier++) sums += shape.made(earlier);
    for (int u = 0; u < made; u++)
      for (int v = 0; v * lanes<T> < rows; v++) sums[u] += by[u * tile_vectors + v];
  }

  void finish_tile() { is_empty = false; }

  // Completes the answer, or adds to it.
  template <class Sees> void give(const Sees &sees) const {
    const Vector<T> *sums = biases.data();
    for (int layer = 0; layer <= shape.hidden_layers; layer++) {
      const int units = shape.seen(layer);
      const Layer &own = layers[size_t(layer)];
      for (int u = 0; u < shape.made(layer); u++, sums++) {
        const T *from = reinterpret_cast<const T *>(own.weights + size_t(u) * size_t(own.step));
        T *to = own.answer + int64_t(u) * units;
        const int seen = sees(layer, u);
        if (!own.is_answer)
          for (int k = 0; k < seen; k++) to[k] = is_first ? from[k] : to[k] + from[k];
        if (is_first) std::fill(to + seen, to + units, T(0));
        const T sum = sum_of_lanes<T>(*sums);
        own.by_bias[u] = is_first ? sum : own.by_bias[u] + sum;
      }
    }
  }
};

// Shares tiles among threads, work(first, last, gradients), and sums the gradients, if they are asked for, in one order.
template <class T, class Sees, class Work>
void with_gradients(const Shape &shape, int64_t tiles, int64_t threads, T *const *by_parameters,
                    const Sees &sees, const Work &work) {
  const int64_t parts = parts_of(tiles, shape.grain(tile_rows<T>), threads);
  std::vector<Gradients<T>> gradients;
  for (int64_t part = 0; by_parameters && part < parts; part++) gradients.emplace_back(shape, by_parameters, part, parts);
  share(tiles, parts, [&](int64_t first, int64_t last, int64_t part) {
    work(first, last, by_parameters ? &gradients[size_t(part)] : nullptr);
  });
  for (const auto &part : gradients) part.give(sees);
}

}  // namespace
