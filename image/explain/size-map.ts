/** The size map of an image as a tree: group, then package, property or step, then file. */
import { GROUP_NAMES, GROUPS, type Group, type Item, totals } from './account.ts';
import { countFiles, formatBytes } from './format-bytes.ts';
import { describeOrigin } from './origins.ts';
import { branch, type TreeNode } from './treemap.ts';

/** What a tile is about. */
export interface MapNode {
  readonly kind: 'image' | 'group' | 'item' | 'file';
  readonly group: Group;
  readonly name: string;
  /** One line: what, how large, how much of the image. */
  readonly title: string;
}

/** Files that take less than this part of the image are one tile together: nobody could see them. */
const SMALLEST = 1 / 10_000;

/** Builds the tree. */
export function sizeTree(items: readonly Item[], name: string): TreeNode<MapNode> {
  const total = items.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const share = (bytes: number): string => `${formatBytes(bytes)}, ${percent(bytes, total)}`;
  const groups = GROUPS.map((group) => {
    const inGroup = items.filter((item) => item.group === group);
    const byName = Map.groupBy(inGroup, (item) => item.name);
    const children = totals(inGroup).map((sum) => {
      const title = `${titleOf(byName.get(sum.name)?.[0]) ?? sum.name}: ${share(sum.storedBytes)}, ${countFiles(sum.files)}`;
      const data: MapNode = { kind: 'item', group, name: sum.name, title };
      return branch(data, filesOf(byName.get(sum.name) ?? [], group, total));
    });
    const bytes = inGroup.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
    const data: MapNode = { kind: 'group', group, name: group, title: `${GROUP_NAMES[group]}: ${share(bytes)}` };
    return branch(data, children);
  });
  return branch({ kind: 'image', group: 'unknown', name, title: `${name}: ${formatBytes(total)}` }, groups);
}

/** `12.3 %`. */
export function percent(part: number, whole: number): string {
  return `${((100 * part) / Math.max(1, whole)).toFixed(1)} %`;
}

/** Packages with their version. */
function titleOf(item: Item | undefined): string | undefined {
  const origin = item?.origins.at(-1);
  if (item === undefined || origin === undefined || item.group === 'kernel') return undefined;
  return origin.kind === 'package' ? `package ${origin.name} ${origin.version}` : describeOrigin(origin);
}

function filesOf(items: readonly Item[], group: Group, total: number): TreeNode<MapNode>[] {
  const large = items.filter(({ storedBytes }) => storedBytes >= total * SMALLEST);
  const small = items.filter(({ storedBytes }) => storedBytes > 0 && storedBytes < total * SMALLEST);
  const nodes = large.map((item) => {
    const unseen = item.hidden ? ', hidden by a layer above' : '';
    const unpacked = item.sizeBytes > 0 ? ` of ${formatBytes(item.sizeBytes)} unpacked` : '';
    const title = `${item.path}: ${formatBytes(item.storedBytes)}${unpacked}${unseen}`;
    return leaf({ kind: 'file', group, name: item.path, title }, item.storedBytes);
  });
  if (small.length === 0) return nodes;
  const bytes = small.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const name = countFiles(small.length);
  return [
    ...nodes,
    leaf({ kind: 'file', group, name, title: `${name} under it, small: ${formatBytes(bytes)}` }, bytes),
  ];
}

const leaf = (data: MapNode, size: number): TreeNode<MapNode> => ({ data, size, children: [] });
