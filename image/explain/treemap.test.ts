import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { shareOut } from './share-out.ts';
import { branch, layOut, type Rect, squarify, type Tile, type TreeNode } from './treemap.ts';

const area = ({ width, height }: Rect): number => width * height;

test("squarify() gives the rectangles of the paper's example", () => {
  const places = squarify([6, 6, 4, 3, 2, 2, 1], { x: 0, y: 0, width: 6, height: 4 });
  const rounded = places.map(({ x, y, width, height }) => [x, y, width, height].map((value) => +value.toFixed(2)));
  assert.deepEqual(rounded.slice(0, 4), [
    [0, 0, 3, 2],
    [0, 2, 3, 2],
    [3, 0, 1.71, 2.33],
    [4.71, 0, 1.29, 2.33],
  ]);
});

const trees = fc.letrec<{ tree: TreeNode<number> }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.nat(1_000_000).map((size) => ({ data: 0, size, children: [] })),
    fc.array(tie('tree'), { minLength: 1, maxLength: 20 }).map((children) => branch(0, children)),
  ),
})).tree;

test('layOut() keeps areas in proportion, inside their place, without overlaps', () => {
  fc.assert(
    fc.property(
      trees,
      fc.integer({ min: 10, max: 2000 }),
      fc.integer({ min: 10, max: 2000 }),
      (tree, width, height) => {
        fc.pre(tree.size > 0);
        const rect = { x: 5, y: 7, width, height };
        const map = layOut(tree, rect);
        const scale = tree.size === 0 ? 0 : (width * height) / tree.size;
        check(map, scale, Math.max(width, height) * 1e-9);
      },
    ),
    { numRuns: 200 },
  );
});

function check(tile: Tile<number>, scale: number, slack: number): void {
  const { rect, size, children } = tile;
  assert.ok(Math.abs(area(rect) - size * scale) <= 1e-6 * (size * scale + 1), `${area(rect)} for ${size * scale}`);
  for (const [index, child] of children.entries()) {
    const inner = child.rect;
    assert.ok(inner.x >= rect.x - slack && inner.x + inner.width <= rect.x + rect.width + slack);
    assert.ok(inner.y >= rect.y - slack && inner.y + inner.height <= rect.y + rect.height + slack);
    for (const other of children.slice(index + 1)) {
      const wide = Math.min(inner.x + inner.width, other.rect.x + other.rect.width) - Math.max(inner.x, other.rect.x);
      const high = Math.min(inner.y + inner.height, other.rect.y + other.rect.height) - Math.max(inner.y, other.rect.y);
      assert.ok(wide <= slack || high <= slack, 'two tiles overlap');
    }
    check(child, scale, slack);
  }
}

test('shareOut() gives away everything, in proportion', () => {
  assert.deepEqual(shareOut(10, [1, 1, 2]), [3, 2, 5]);
  assert.deepEqual(shareOut(7, [0, 0]), [0, 7]);
  assert.deepEqual(shareOut(7, []), []);
  fc.assert(
    fc.property(fc.nat(1e9), fc.array(fc.nat(1e9), { minLength: 1 }), (total, weights) => {
      const shares = shareOut(total, weights);
      const sum = weights.reduce((all, weight) => all + weight, 0);
      assert.equal(
        shares.reduce((all, share) => all + share, 0),
        total,
      );
      for (const [index, share] of shares.entries()) {
        const fair = sum === 0 ? share : (total * (weights[index] ?? 0)) / sum;
        assert.ok(share >= 0 && Math.abs(share - fair) <= 1.001);
      }
    }),
  );
});
