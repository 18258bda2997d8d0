/** The page for people: the list of tasks. No scripts; nothing is fetched from elsewhere. */
import type { TaskSummary } from './task-view.ts';

/** What the browser may do with the page. */
export const CONTENT_SECURITY_POLICY =
  "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const STYLE = `
  body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
  .success { color: #17752c; } .warning { color: #8a5a00; }
  .error, .abort, .abnormal { color: #b3201a; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    body { background: #16181c; color: #e4e6ea; } a { color: #8ab4f8; }
    .success { color: #6fd388; } .warning { color: #e6b450; } .error, .abort, .abnormal { color: #ff8a80; }
  }`;

/** The whole page. @param tasks - the newest first */
export function formatPage(tasks: readonly TaskSummary[]): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="10">
<title>Build OS controller</title>
<style>${STYLE}
</style>
</head>
<body>
<h1>Tasks</h1>
${tasks.length === 0 ? '<p>No task was submitted yet.</p>' : formatTable(tasks)}
<p><a href="/?tasks">as JSON</a></p>
</body>
</html>
`;
}

/** Makes a text safe inside an element and inside a quoted attribute. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

function formatTable(tasks: readonly TaskSummary[]): string {
  return `<table>
<thead><tr><th>Task</th><th>Package</th><th>Machine</th><th>State</th><th>Result</th><th>Attempts</th><th>Submitted</th><th>Logs</th></tr></thead>
<tbody>
${tasks.map(formatRow).join('\n')}
</tbody>
</table>`;
}

function formatRow(task: TaskSummary): string {
  const id = encodeURIComponent(task.id);
  const cells = [
    `<a href="/?task=${id}">${escapeHtml(task.id)}</a>`,
    `${escapeHtml(task.name)} ${escapeHtml(task.version)}`,
    escapeHtml(task.machine),
    escapeHtml(task.state),
    task.status === undefined ? '' : `<span class="${escapeHtml(task.status)}">${escapeHtml(task.status)}</span>`,
    String(task.attempts),
    escapeHtml(task.submitted),
    task.state === 'done' ? `<a href="/?log=${id}">logs</a>` : '',
  ];
  return `<tr>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
}
