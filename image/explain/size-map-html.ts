/**
 * The size map as one HTML file: the drawing, what is under the pointer or the keyboard, a search, and the same as a
 * table. It loads nothing: its policy forbids it.
 */
import { GROUP_NAMES, type Item, totals } from './account.ts';
import { formatBytes } from './format-bytes.ts';
import { percent, sizeTree } from './size-map.ts';
import { drawMap, escape, MAP_STYLE } from './size-map-svg.ts';

const STYLE = `
:root { color-scheme: light dark; }
body { font-family: system-ui, sans-serif; margin: 1rem auto; max-width: 110rem; padding: 0 1rem; line-height: 1.4; }
h1 { font-size: 1.3rem; margin: 0.2rem 0; }
.map { display: block; width: 100%; height: auto; aspect-ratio: 1600 / 940; }
#about { display: block; min-height: 2.8em; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.1rem 0.8rem 0.1rem 0; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
kbd { border: 1px solid; border-radius: 3px; padding: 0 0.3em; }
`;

/** Arrow keys go from tile to tile, the largest first; Enter looks closer, Escape goes back. */
const SCRIPT = `
const map = document.querySelector('.map');
const about = document.getElementById('about');
const items = [...map.querySelectorAll('.item')];
const whole = map.getAttribute('viewBox');
const tell = (text) => { about.textContent = text; };
let at = 0;
const focus = (index) => {
  items[at].setAttribute('tabindex', '-1');
  at = Math.min(items.length - 1, Math.max(0, index));
  items[at].setAttribute('tabindex', '0');
  items[at].focus({ preventScroll: true });
};
const closer = (item) => {
  const box = item.querySelector('.frame').getBBox();
  const margin = Math.max(box.width, box.height) * 0.03;
  map.setAttribute('viewBox', [box.x - margin, box.y - margin, box.width + 2 * margin, box.height + 2 * margin].join(' '));
  map.classList.add('closer');
};
const back = () => { map.setAttribute('viewBox', whole); map.classList.remove('closer'); };
// Browsers let the drawing itself take the focus when it listens to keys: that is for the tiles.
map.setAttribute('tabindex', '-1');
if (items.length > 0) items[0].setAttribute('tabindex', '0');
map.addEventListener('mouseover', (event) => {
  const title = event.target.querySelector('title') ?? event.target.closest('.item');
  if (title !== null) tell(title.textContent ?? '');
});
map.addEventListener('focusin', (event) => {
  const item = event.target.closest('.item');
  if (item !== null) { at = items.indexOf(item); tell(item.getAttribute('aria-label')); }
});
map.addEventListener('dblclick', (event) => {
  const item = event.target.closest('.item');
  if (item === null || map.getAttribute('viewBox') !== whole) back(); else closer(item);
});
map.addEventListener('keydown', (event) => {
  const keys = {
    ArrowRight: () => focus(at + 1), ArrowDown: () => focus(at + 1), ArrowLeft: () => focus(at - 1), ArrowUp: () => focus(at - 1),
    Home: () => focus(0), End: () => focus(items.length - 1), Enter: () => closer(items[at]), Escape: back,
  };
  const act = keys[event.key];
  if (act === undefined) return;
  event.preventDefault();
  act();
});
document.getElementById('find').addEventListener('input', (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  let count = 0;
  for (const item of items) {
    const found = wanted !== '' && item.textContent.toLowerCase().includes(wanted);
    item.classList.toggle('found', found);
    if (found) count += 1;
  }
  tell(wanted === '' ? '' : count + ' found, framed');
});
`;

/** What stands above the map. */
export interface MapHeading {
  readonly title: string;
  /** A line or two. */
  readonly lines: readonly string[];
}

/** The page. */
export function formatMapPage(items: readonly Item[], heading: MapHeading): string {
  const total = items.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const rows = totals(items, ({ group, name }) => `${group} ${name}`).map((sum) => {
    const name = sum.name.slice(sum.group.length + 1);
    const numbers = [
      formatBytes(sum.storedBytes),
      percent(sum.storedBytes, total),
      formatBytes(sum.sizeBytes),
      String(sum.files),
    ];
    const cells = numbers.map((text) => `<td class="number">${escape(text)}</td>`).join('');
    return `<tr><th scope="row">${escape(name)}</th><td>${escape(GROUP_NAMES[sum.group])}</td>${cells}</tr>`;
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escape(heading.title)}</title>
<style>${STYLE}${MAP_STYLE}</style>
</head>
<body>
<h1>${escape(heading.title)}</h1>
${heading.lines.map((line) => `<p>${escape(line)}</p>`).join('\n')}
<p><label>Find a package, a property or a large file: <input id="find" type="search"></label>
Double click or <kbd>Enter</kbd> looks closer, <kbd>Esc</kbd> goes back, arrow keys go from one to the next.</p>
${drawMap(sizeTree(items, heading.title), { standalone: false })}<output id="about" aria-live="polite"></output>
<details><summary>As a table</summary>
<table><thead><tr><th scope="col">what</th><th scope="col">kind</th><th scope="col">in the image</th><th scope="col">share</th><th scope="col">unpacked</th><th scope="col">files</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table></details>
<script>${SCRIPT}</script>
</body>
</html>
`;
}
