// Whole layers, one after the other.
#pragma once

#include "autoregressive.h"
#include "coupling.h"

struct pushforward_layer {
  int64_t structure;
  const pushforward_map *map;
  const pushforward_network *network;
};

namespace {

enum Structure { coupling_layer, parallel_layer, sequential_layer };

// Layers in a row, for n rows of the same columns. Pointers to parameters are those of the first layer, then of the next.
//
// The gradient needs of each layer what it saves and, of each but the first, the value that goes into it; these follow
// each other in one array.
template <class T> class Row {
  struct Layer {
    const pushforward_layer &given;
    Shape shape;
    int64_t first_parameter, saved_at, value_at;
  };
  std::vector<Layer> layers;
  int64_t n, size = 0;

  bool is_last(size_t k) const { return k + 1 == layers.size(); }

 public:
  Row(int32_t count, const pushforward_layer *given, int64_t n) : n(n) {
    int64_t parameter = 0;
    for (int32_t k = 0; k < count; k++) {
      const Shape shape(*given[k].network);
      const int64_t value_at = size;
      // Whole vectors, so that what follows is aligned as well as the array.
      if (k) size += (n * shape.columns + lanes<T> - 1) / lanes<T> * lanes<T>;
      layers.push_back({given[k], shape, parameter, size, value_at});
      size += whole_tiles<T>(n) * tile_rows<T> * shape.kept_units();
      parameter += 2 * (shape.hidden_layers + 1);
    }
  }

  int64_t saved_size() const { return size; }

  // Without `saved`, each layer writes over what the one before it has made.
  int32_t apply(const T *const *parameters, const T *value, const T *context, T *out, T *log_det, T *saved,
                int64_t threads) const {
    std::vector<T> own_log_det(layers.size() > 1 ? size_t(n) : 0);
    for (size_t k = 0; k < layers.size(); k++) {
      const Layer &layer = layers[k];
      T *to = saved && !is_last(k) ? saved + layers[k + 1].value_at : out, *log = k ? own_log_det.data() : log_det;
      T *keep = saved ? saved + layer.saved_at : nullptr;
      const T *const *own = parameters + layer.first_parameter;
      const int32_t fault = with_map<T>(*layer.given.map, [&](const auto &map) {
        if (layer.given.structure == coupling_layer)
          coupling<T>(map, layer.shape, own, n, value, context, to, log, keep, threads);
        else
          autoregressive<T>(map, layer.shape, layer.given.structure == sequential_layer, own, n, value, context, to, log,
                            keep, threads);
      });
      if (fault) return fault;
      for (int64_t i = 0; k && i < n; i++) log_det[i] += log[i];
      value = to;
    }
    return 0;
  }

  // Gradients by the value, and, where there is room for them, by the context and by the parameters.
  int32_t pull(const T *const *parameters, const T *value, T *saved, const T *by_out, const T *by_log_det, T *by_value,
               T *by_context, T *const *by_parameters, int64_t threads) const {
    std::vector<T> own_by_context;
    bool is_first_context = true;
    for (size_t k = layers.size(); k-- > 0; by_out = by_value) {
      const Layer &layer = layers[k];
      const T *given = k ? saved + layer.value_at : value;
      T *kept = saved + layer.saved_at;
      const T *const *own = parameters + layer.first_parameter;
      T *const *by_own = by_parameters ? by_parameters + layer.first_parameter : nullptr;
      T *by_seen = by_context && layer.shape.context ? by_context : nullptr;
      const int64_t numbers = n * layer.shape.context;
      if (by_seen && !is_first_context) own_by_context.resize(size_t(numbers)), by_seen = own_by_context.data();
      const int32_t fault = with_map<T>(*layer.given.map, [&](const auto &map) {
        if (layer.given.structure == coupling_layer)
          coupling_pull<T>(map, layer.shape, own, n, given, kept, by_out, by_log_det, by_value, by_seen, by_own, threads);
        else
          autoregressive_pull<T>(map, layer.shape, layer.given.structure == sequential_layer, own, n, given, kept, by_out,
                                 by_log_det, by_value, by_seen, by_own, threads);
      });
      if (fault) return fault;
      for (int64_t i = 0; by_seen && !is_first_context && i < numbers; i++) by_context[i] += by_seen[i];
      is_first_context &= !by_seen;
    }
    return 0;
  }
};

}  // namespace
