/** The size map as SVG: it stands alone, and is what the HTML page shows. */
import { GROUP_NAMES, GROUPS } from './account.ts';
import type { MapNode } from './size-map.ts';
import { layOut, type Rect, type Tile, type TreeNode } from './treemap.ts';

/** In units of the drawing. */
const MAP_RECT: Rect = { x: 0, y: 0, width: 1600, height: 900 };

const LEGEND_HEIGHT = 40;

/** Widths of letters in relation to their height, for labels that fit: an estimate for sans-serif fonts. */
const LETTER = 0.63;
const LABEL = { largest: 24, smallest: 3.5 } as const;
/** Of files, to be seen from near only. */
const NAME = { largest: 6, smallest: 0.5 } as const;

/** Colours by group, for light and dark; text on them has a contrast of at least 4.5 to 1 (WCAG 1.4.3). */
export const MAP_STYLE: string = `
.map { font-family: system-ui, sans-serif; --ink: #101418; --line: #ffffff; --packages: #8ab8e6; --kernel: #e8b27a;
  --ours: #9fd49a; --properties: #d3a8e0; --form: #b9bec4; --unknown: #e39a9a; }
@media (prefers-color-scheme: dark) { .map { --ink: #f2f4f6; --line: #14181c; --packages: #2c5680; --kernel: #7d5220;
  --ours: #2f6b2b; --properties: #6a3f7a; --form: #4a5057; --unknown: #8a3535; } }
${GROUPS.map((group) => `.map .${group} { fill: var(--${group}); }`).join('\n')}
.map text { fill: var(--ink); pointer-events: none; }
.map rect { vector-effect: non-scaling-stroke; }
.map .file { stroke: var(--line); stroke-width: 0.25; }
.map .frame { fill: none; stroke: var(--line); stroke-width: 1.5; pointer-events: none; }
.map .name { display: none; }
.map.closer .name { display: inline; }
.map.closer .label { display: none; }
.map .group > .frame { stroke-width: 4; }
.map .file:hover { fill-opacity: 0.7; }
.map .item:focus { outline: none; }
.map .item:focus > .frame, .map .item.found > .frame { stroke: var(--ink); stroke-width: 4; }
`;

/** Draws a map; the whole file when `standalone`, else an element for a page that has {@link MAP_STYLE}. */
export function drawMap(tree: TreeNode<MapNode>, options: { readonly standalone: boolean }): string {
  const { standalone } = options;
  const map = layOut(tree, MAP_RECT);
  const height = MAP_RECT.height + LEGEND_HEIGHT;
  const view = `0 0 ${MAP_RECT.width} ${height}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="${view}" role="group" aria-label="${escape(`Size map of ${tree.data.title}`)}">`,
    `<title>${escape(tree.data.title)}</title>`,
    ...(standalone ? [`<style>${MAP_STYLE}</style>`] : []),
    ...map.children.map((group) => drawGroup(group, { names: !standalone })),
    drawLegend(map),
    '</svg>',
    '',
  ].join('\n');
}

/** Text for XML. */
export function escape(text: string): string {
  const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  // XML knows no control characters, whatever a file is called.
  return text.replaceAll(/\p{Cc}/gu, '\u{fffd}').replaceAll(/[&<>"]/g, (letter) => entities[letter] ?? '');
}

/** @param options - `names`: those of files, which a page shows when it looks closer */
function drawGroup(group: Tile<MapNode>, options: { readonly names: boolean }): string {
  const items = group.children.map((item) => drawItem(item, options)).join('\n');
  return `<g class="group ${group.data.group}">\n${items}\n${frame(group.rect)}</g>`;
}

function drawItem(item: Tile<MapNode>, { names }: { readonly names: boolean }): string {
  const title = escape(item.data.title);
  const files = item.children.map(
    ({ rect, data }) => `<rect class="file" ${place(rect)}><title>${escape(data.title)}\n${title}</title></rect>`,
  );
  const inner = item.children.map(({ rect, data }) => {
    const name = data.name.slice(data.name.lastIndexOf('/') + 1);
    return names ? label(rect, name, { kind: 'name', ...NAME }) : '';
  });
  const drawn = [...files, ...inner, frame(item.rect), label(item.rect, item.data.name, { kind: 'label', ...LABEL })];
  return `<g class="item" tabindex="-1" role="img" aria-label="${title}" data-name="${escape(item.data.name)}">${drawn.join('')}</g>`;
}

const frame = (rect: Rect): string => `<rect class="frame" ${place(rect)}/>`;

/** A text, as large as it fits; in a high tile from top to bottom. */
function label(
  rect: Rect,
  text: string,
  { kind, largest, smallest }: { readonly kind: string; readonly largest: number; readonly smallest: number },
): string {
  const upright = rect.height > rect.width * 1.8;
  const [along, across] = upright ? [rect.height, rect.width] : [rect.width, rect.height];
  const size = Math.min(largest, across * 0.7, (along * 0.92) / (LETTER * Math.max(3, text.length)));
  if (size < smallest) return '';
  const [x, y] = [short(rect.x + rect.width / 2), short(rect.y + rect.height / 2)];
  const turned = upright ? ` transform="rotate(90 ${x} ${y})"` : '';
  return `<text class="${kind}" x="${x}" y="${y}" font-size="${short(size)}" text-anchor="middle" dominant-baseline="central"${turned}>${escape(text)}</text>`;
}

function drawLegend(map: Tile<MapNode>): string {
  const top = MAP_RECT.height + 10;
  let x = 0;
  return map.children
    .map(({ data }) => {
      const text = GROUP_NAMES[data.group];
      const drawn = `<rect class="${data.group}" x="${x}" y="${top}" width="18" height="18"/><text x="${x + 24}" y="${top + 14}" font-size="15"><title>${escape(data.title)}</title>${escape(text)}</text>`;
      x += 50 + Math.ceil(text.length * 15 * LETTER);
      return drawn;
    })
    .join('\n');
}

const place = ({ x, y, width, height }: Rect): string =>
  `x="${short(x)}" y="${short(y)}" width="${short(width)}" height="${short(height)}"`;

/** A hundredth of a unit is less than a pixel however far one zooms in. */
const short = (value: number): string => String(Math.round(value * 100) / 100);
