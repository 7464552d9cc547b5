"""Chat template goldens: templates of the kinds in circulation, written here, rendered by transformers.

Writes goldens.json beside itself. Made with transformers 5.23.0, jinja2 3.1.6:
  python make_goldens.py
"""

import json
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
    golden = {"templates": TEMPLATES, "conversations": CONVERSATIONS, "cases": cases}
    Path(__file__).with_name("goldens.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1), encoding="utf8")
    print(f"{len(cases)} cases, {sum('error' in c for c in cases)} refused by their template")
