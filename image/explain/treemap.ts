/**
 * A squarified treemap: rectangles whose areas are in proportion to sizes, as near to squares as can be, one in another.
 *
 * Bruls, Huizing, van Wijk: Squarified Treemaps (2000). No room is left for borders or headings, so that areas can be
 * compared across the whole map.
 */

/** What is drawn: with children its size is theirs. */
export interface TreeNode<T> {
  readonly data: T;
  /** Of a leaf; 0 or more. */
  readonly size: number;
  readonly children: readonly TreeNode<T>[];
}

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A node in its place. Nodes without size have none. */
export interface Tile<T> {
  readonly data: T;
  readonly size: number;
  readonly rect: Rect;
  readonly children: readonly Tile<T>[];
}

/** A node of others: its size is theirs together. */
export function branch<T>(data: T, children: readonly TreeNode<T>[]): TreeNode<T> {
  return { data, size: children.reduce((sum, { size }) => sum + size, 0), children };
}

/** Places a node and all that is in it. */
export function layOut<T>(node: TreeNode<T>, rect: Rect): Tile<T> {
  const children = node.children.filter(({ size }) => size > 0).toSorted((a, b) => b.size - a.size);
  const places = squarify(
    children.map(({ size }) => size),
    rect,
  );
  return {
    data: node.data,
    size: node.size,
    rect,
    children: children.map((child, index) => layOut(child, places[index] ?? rect)),
  };
}

/**
 * Fills a rectangle, row by row along its shorter side, as long as another one in the row makes the worst of it squarer.
 *
 * @param sizes - more than 0, the largest first
 */
export function squarify(sizes: readonly number[], rect: Rect): Rect[] {
  const places: Rect[] = [];
  let free = rect;
  let left = sizes.reduce((sum, size) => sum + size, 0);
  for (let first = 0; first < sizes.length;) {
    const scale = left === 0 ? 0 : (free.width * free.height) / left;
    const side = Math.min(free.width, free.height);
    let row = [sizes[first] ?? 0];
    for (let next = first + 1; next < sizes.length; next += 1) {
      const longer = [...row, sizes[next] ?? 0];
      if (worst(longer, side, scale) > worst(row, side, scale)) break;
      row = longer;
    }
    const sum = row.reduce((all, size) => all + size, 0);
    const last = first + row.length === sizes.length;
    const wide = free.width >= free.height;
    const whole = wide ? free.width : free.height;
    const depth = last ? whole : side === 0 ? 0 : (sum * scale) / side;
    let at = 0;
    for (const size of row) {
      const length = sum === 0 ? 0 : (side * size) / sum;
      places.push(
        wide
          ? { x: free.x, y: free.y + at, width: depth, height: length }
          : { x: free.x + at, y: free.y, width: length, height: depth },
      );
      at += length;
    }
    free = wide
      ? { x: free.x + depth, y: free.y, width: Math.max(0, free.width - depth), height: free.height }
      : { x: free.x, y: free.y + depth, width: free.width, height: Math.max(0, free.height - depth) };
    left -= sum;
    first += row.length;
  }
  return places;
}

/** The worst aspect ratio of a row of this length: 1 is a square. */
function worst(row: readonly number[], side: number, scale: number): number {
  const areas = row.map((size) => size * scale);
  const sum = areas.reduce((all, area) => all + area, 0);
  const [largest, smallest] = [areas[0] ?? 0, areas.at(-1) ?? 0];
  if (smallest <= 0 || sum <= 0) return Infinity;
  return Math.max((side * side * largest) / (sum * sum), (sum * sum) / (side * side * smallest));
}
