"""Chat template goldens: templates of the kinds in circulation, written here, rendered by transformers; dates by Python.

Writes goldens.json beside itself. Made with transformers 5.24.0, jinja2 3.1.6:
  python make_goldens.py
"""

import json
from datetime import datetime
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

TEMPLATES = {
    # Llama 3: headers, the content trimmed, the begin token before the first message.
    "llama3": """{% for message in messages %}
{%- set part = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.index0 == 0 %}{% set part = bos_token + part %}{% endif %}
{{- part }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    # BitNet b1.58 2B4T: "Role: text<|eot_id|>", then "Assistant: ".
    "bitnet": "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}",
    # Falcon3: role tags on lines, the end token after an answer.
    "falcon3": "{% for message in messages %}{% if message['role'] in ['system', 'user', 'assistant'] %}"
    "{% if not loop.last or message['role'] != 'assistant' %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}"
    "{% else %}{{ '<|assistant|>\\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}{% endfor %}",
    # ChatML with a default system message and lines of template code that must leave no blank.
    "chatml": """
    {% if messages[0]['role'] != 'system' %}
<|im_start|>system
You are helpful.<|im_end|>
    {% endif %}
    {% for message in messages %}
        {# one message #}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>' }}
    {% endfor %}
    {% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}""",
    # Llama 2: the system text inside the first instruction; roles must alternate.
    "llama2": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = false %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% if loop.index0 == 0 and system is not false %}{% set text = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m.content %}"
    "{% else %}{% set text = m.content %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    # Zephyr.
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    # Everything else that templates use: macros, namespaces, Python methods, loop controls, JSON, generation tags.
    "kitchen": """{%- macro head(role, n=1) -%}[{{ role.upper() }}#{{ n }}]{%- endmacro -%}
{%- set ns = namespace(count=0, last='') -%}
{%- for m in messages -%}
  {%- if m.role == 'tool' %}{% continue %}{% endif -%}
  {%- if ns.count >= 4 %}{% break %}{% endif -%}
  {%- set ns.count = ns.count + 1 -%}
  {{- head(m.role, n=ns.count) }} {{ m.content.split('\\n')[0].strip() | default('-') }}
  {%- if m.content.startswith('{') and m.content.endswith('}') %} json{% endif -%}
  {%- if '</think>' in m.content %} thought={{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endif -%}
  {{- ' ' ~ (m | tojson) ~ ' ' ~ m.content.replace('a', 'b').title() | length }}
  {% generation %}{{ m.get('name', 'none') }}{% endgeneration %}

  {%- for key, value in m.items() %} {{ key }}={{ value | length }}{% endfor %}
  {%- set ns.last = m.role -%}
{%- endfor -%}
{{ ns.last }} {{ messages | length }} {{ messages[-1].content[:3] }} {{ messages[::-1][0].role }} {{ 7 // 2 }} {{ 7 % 3 }}
{{- tools is none }} {{ nothing is defined }} {{ strftime_now is defined }} {{ messages[0].content is string }} {{ messages | map(attribute='role') | join(',') }}
{{ {'z': [1, 2.5, none, true], 'a': {'é<>&': "it's"}} | tojson }}
{{ [{'b': 1, 'a': []}] | tojson(indent=2) }}
{%- if add_generation_prompt %}>{% endif %}""",
}

CONVERSATIONS = {
    "question": [("user", "What is 1+1?")],
    "system": [("system", "Be brief."), ("user", "  Hi!  "), ("assistant", "Hello.\n"), ("user", "Naïve “quotes” & <tags> 你好 🙂\nsecond line")],
    "answered": [("user", "a"), ("assistant", "<think>hm</think>\nb")],
    "odd": [("system", ""), ("user", '{"x": 1}'), ("assistant", "ends with space "), ("user", "{{ bos_token }} {% raw %}")],
    "wrong order": [("assistant", "I begin"), ("tool", "result"), ("user", "x")],
}

# Families whose templates call tools, think and take content in parts; each in the manner of its family.
FAMILIES = {
    "qwen3": """{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n\\nCall them as JSON between <tool_call> tags.\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.searching = false %}{%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}{%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if call.function %}{%- set call = call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
                {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "llama3-tools": """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now("day %%") %}
{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}{%- set first = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("No first user message to put tools in!") }}{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("one tool call at a time") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}{{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}""",
    "gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set first = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}{%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}{%- set first = "" -%}{%- set rest = messages -%}{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception("Conversation roles must alternate user/assistant") }}{%- endif -%}
    {%- if message['role'] == 'assistant' -%}{%- set role = "model" -%}{%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}""",
    "mistral": """{%- if messages[0]["role"] == "system" %}{%- set system = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- for message in loop_messages | rejectattr("role", "equalto", "tool") | rejectattr("role", "equalto", "tool_results") | selectattr("tool_calls", "undefined") %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}{{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}{{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- "[INST] " + system + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in message.tool_calls %}{%- set out = call.function|tojson %}{{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}{{- raise_exception("ids of tool calls have 9 characters") }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}
        {%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}{{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception("Only user and assistant roles are supported") }}{%- endif %}
{%- endfor %}""",
    "falcon-e": """{% if tools %}{% for m in messages %}{% if m.role == 'system' %}{{ '<|system|>\\n' + m.content + '\\nTools: ' + tools|tojson(indent=2) + '\\n' }}
{%- elif m.role == 'user' %}{{ '<|user|>\\n' ~ m.content ~ '\\n' }}{% elif m.role == 'assistant' %}{% if m.tool_calls %}
{%- for c in m.tool_calls %}{{ '<tool_call>' ~ c ~ '</tool_call>' }}{% endfor %}{% else %}{{ '<|assistant|>\\n' ~ m.content ~ eos_token }}{% endif %}
{%- endif %}{% endfor %}{% else %}{% for m in messages %}{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ '\\n' }}{% endfor %}{% endif %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}""",
    "minicpm": """{%- macro parts(content) -%}{%- if content is string -%}{{ content }}{%- else -%}{%- for p in content -%}{{ p.text | default('', true) }}{%- endfor -%}{%- endif -%}{%- endmacro -%}
{%- set state = namespace(system=false) -%}
{%- for m in messages if m.role == 'system' -%}{%- set state.system = true -%}{%- endfor -%}
{%- if not state.system -%}{{ bos_token ~ '<用户>' }}{%- endif -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '<用户>' + parts(m.content).strip() }}{%- elif m.role == 'assistant' -%}{{ '<AI>' + parts(m.content) | trim }}{%- endif -%}{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<AI>' }}{%- endif -%}""",
    "hunyuan": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}<｜hy_begin▁of▁sentence｜>{{ system_message }}<｜hy_place▁holder▁no▁3｜>{% else %}{% set loop_messages = messages %}<｜hy_begin▁of▁sentence｜>{% endif %}
{%- for message in loop_messages %}{% if message['role'] == 'user' %}<｜hy_User｜>{{ message['content'] }}{% elif message['role'] == 'assistant' %}<｜hy_Assistant｜>{{ message['content'] }}<｜hy_place▁holder▁no▁2｜>{% endif %}{% endfor %}
{%- if add_generation_prompt %}<｜hy_Assistant｜>{% else %}<｜hy_place▁holder▁no▁8｜>{% endif %}
{%- if enable_thinking is defined and not enable_thinking %}<think>

</think>
{% endif %}""",
    "phi": """{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + (message['content'] or '') | string + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] is not none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls']%}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜>' + tool['type'] + '\\n' + tool['function']['name'] + '\\n```json\\n' + tool['function']['arguments']|tojson + '\\n```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['name'] ~ tool['function']['arguments']}}{%- endif %}{%- endfor %}{{'<｜end▁of▁sentence｜>'}}{%- elif message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜>' ~ message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' ~ message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}""",
    # What prints a value as Python does, and the arguments of tojson.
    "python": """{{ [1, 2.0, 1e22, 1e-5, 0.1, none, true, 'it\\'s', "say \\"x\\"", "a\\nb"] }} {{ {'k': [false, {}]} }} {{ none }} {{ true }} {{ nothing }}|{{ messages }}
{{ messages | tojson(ensure_ascii=False, indent=2, separators=(',', ':'), sort_keys=True) }}
{{ messages | tojson(ensure_ascii=True) }} {{ messages | tojson(sort_keys=true) }} {{ messages | tojson(indent='\\t') }} {{ messages | tojson(indent=0) }}
{{ {'b': [], 'a': {}, 1: 1.5, none: true} | tojson }} {{ {'z': 1, 'y': {'x': "é\\u2028\\x7f<&>'"}} | tojson(true, 1, (';', '=')) }}
{{ 'a,b,c'.rsplit(',', 1) }} {{ 'a,b'.partition(',') | list }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ "%s-%d" | format("a", 3) }}
{{ tools is none }} {{ tools is defined }} {{ none is iterable }} {{ 'x' is iterable }} {{ 1 is iterable }} {{ {} is iterable }} {{ 1.0 }} {{ 3 / 2 }} {{ 4 / 2 }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ (1, 2) | list }}
{%- for m in messages %}{% if loop.index == 2 %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %} {{ loop.revindex }}{{ loop.cycle('a', 'b') }}{% endfor %}
{% macro call_me() %}[{{ caller() }}]{% endmacro %}{% call call_me() %}inner{% endcall %}{% filter upper %}up{% endfilter %}{% set block %}b{{ 1 }}{% endset %}{{ block }}
{{ messages | map(attribute='role') | unique | list }} {{ messages | selectattr('role', 'in', ['user']) | list | length }} {{ [3, 1, 2] | sort | join('-') }} {% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}""",
}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather “now”.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "add", "description": "a + b", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}, "return": {"type": "number"}}},
]
CALL = {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
TALKS = {
    "plain": [{"role": "user", "content": "Hi “you”"}],
    "turns": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "  1+1? "}, {"role": "assistant", "content": "2\n"}, {"role": "user", "content": "你好 🙂\n"}],
    "thought": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning": "hm\n"}, {"role": "user", "content": "c"},
                {"role": "assistant", "content": "<think>\nx\n</think>\n\ny"}],
    "called": [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
               {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "{\"sky\": \"clear\", \"t\": 21.5}"}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "?"}]}],
    "prefilled": [{"role": "user", "content": "Name a colour"}, {"role": "assistant", "content": "The colour is "}],
}
DATES = ["2024-02-29T12:34:56.000789", "2026-01-01T00:05:09", "2021-12-31T23:59:59.999999", "1999-09-09T09:09:09.09"]


def families():
    cases = []
    for name, template in (FAMILIES | {k: TEMPLATES[k] for k in ("zephyr", "chatml")}).items():
        for title, messages in TALKS.items():
            for tools in (None, TOOLS):
                for ending in ("whole", "prompt", "continued"):
                    if (ending == "continued") != (title == "prefilled"):
                        continue
                    variables = {"enable_thinking": False} if title in ("plain", "called") else {}
                    case = {"template": name, "talk": title, "tools": tools is not None, "ending": ending, "variables": variables}
                    try:
                        texts, _ = render_jinja_template(
                            [messages], tools=tools, chat_template=template, add_generation_prompt=ending == "prompt",
                            continue_final_message=ending == "continued", bos_token="<s>", eos_token="</s>", **variables)
                        case["text"] = texts[0]
                    except (TemplateError, ValueError, TypeError) as e:
                        case["error"] = str(e) if isinstance(e, TemplateError) and "raise_exception" in template and str(e) in template else ""
                    cases.append(case)
    return cases


def dates():
    codes = [f + c for c in "aAbBcdDeFfgGhHIjklmMnpPrRStTuUVwWxXyYzZ%" for f in ("", "-", "_", "0", "^", "#") if not (f and c in "fzZcDFnrRtTxX%")]
    formats = ["%" + code for code in codes] + ["%Y-%m-%d %I:%M %p", "%d %b %Y", "%A, %B %d, %Y", "100%", "%Q %i", "a%"]
    return [[d, f, datetime.fromisoformat(d).strftime(f)] for d in DATES for f in formats]


if __name__ == "__main__":
    cases = []
    for name, template in TEMPLATES.items():
        for title, messages in CONVERSATIONS.items():
            conversation = [{"role": r, "content": c} for r, c in messages]
            for prompt in (False, True):
                case = {"template": name, "conversation": title, "add_generation_prompt": prompt}
                try:
                    texts, _ = render_jinja_template([conversation], chat_template=template, add_generation_prompt=prompt,
                                                     bos_token="<s>", eos_token="</s>")
                    case["text"] = texts[0]
                except TemplateError as e:
                    case["error"] = str(e)
                cases.append(case)
    golden = {"templates": TEMPLATES | FAMILIES, "conversations": CONVERSATIONS, "cases": cases,
              "tools": TOOLS, "talks": TALKS, "families": families(), "dates": dates()}
    Path(__file__).with_name("goldens.json").write_text(json.dumps(golden, ensure_ascii=False, indent=None), encoding="utf8")
    print(f"{len(golden['families'])} of families, {sum('error' in c for c in golden['families'])} refused")
    print(f"{len(cases)} cases, {sum('error' in c for c in cases)} refused by their template")
