/**
 * The controller's requests and their answers. All are on the path `/`; the first name of the query says which.
 *
 * ```
 * POST /?build-task                     an agent asks for a task
 * POST /?build-result                   … gives a result back          (the result-url of a task response)
 * POST /?build-upload=<type>            … uploads a file before that   (a <type>-upload-url)
 * POST /?submit                         a task manifest → {"id": …}
 * GET  /?tasks   /?task=<id>            JSON
 * GET  /?log=<id>[&operation=<op>]      text
 * GET  /?result=<id>                    the result manifest
 * GET  /?upload=<id>[&type=<type>]      the uploaded file
 * GET  /                                a page for people
 * ```
 */
import type { IncomingMessage } from 'node:http';
import { handOutTask, takeResult, takeUpload } from './agent-requests.ts';
import type { Answer, Desk } from './desk.ts';
import { RequestError } from './error.ts';
import { giveLog, givePage, giveResult, giveTask, giveTasks, giveUpload, submitTask } from './task-requests.ts';

type Handler = (request: IncomingMessage, query: URLSearchParams, desk: Desk) => Answer | Promise<Answer>;

const ROUTES: Readonly<Record<'GET' | 'POST', Readonly<Record<string, Handler>>>> = {
  GET: {
    '': givePage,
    tasks: giveTasks,
    task: giveTask,
    log: giveLog,
    result: giveResult,
    upload: giveUpload,
  },
  POST: {
    'build-task': handOutTask,
    'build-result': takeResult,
    'build-upload': takeUpload,
    submit: submitTask,
  },
};

/**
 * Answers one request.
 *
 * @throws {RequestError} for what is refused
 * @throws {ManifestError} for a manifest that is wrong
 */
export async function answer(request: IncomingMessage, desk: Desk): Promise<Answer> {
  const url = URL.parse(request.url ?? '', 'http://controller');
  if (url === null) throw new RequestError(400, 'The address of the request is not a URL');
  const method = request.method === 'HEAD' ? 'GET' : (request.method ?? '');
  const [name = ''] = url.searchParams.keys();
  if (url.pathname !== '/' || !Object.values(ROUTES).some((routes) => Object.hasOwn(routes, name))) {
    throw new RequestError(404, `There is nothing at ${JSON.stringify(request.url)}`, {
      hint: 'All requests are on "/": GET /, /?tasks, /?task=ID, /?log=ID&operation=OP, POST /?submit, /?build-task.',
    });
  }
  const routes = method === 'GET' || method === 'POST' ? ROUTES[method] : {};
  const handler = Object.hasOwn(routes, name) ? routes[name] : undefined;
  if (handler === undefined) throw new RequestError(405, `${method} is not for "/?${name}"`);
  return handler(request, url.searchParams, desk);
}
